"""One page on one image: the photograph, the votes over it layer by layer, what is answered, and why not another."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.explained import Evidence, Explanation, Neighbour
from finevote.explanation.figures import Cell, show_image
from finevote.explanation.overlay import contrast_overlay, frame_view, in_view, vote_colors, vote_overlay
from finevote.explanation.telling import finding, percent, readable, tell_contrast, tell_set, tell_verdict
from finevote.explanation.vote_map import strongest_heads

_MARGIN_IN, _GAP_IN, _HEADER_IN = 0.35, 0.25, 0.85
_PANEL_IN, _NARROWEST_IN, _TEXT_IN = 2.9, 2.3, 3.3
_SMALL_IN, _SMALL_GAP_IN, _SMALLEST_IN = 1.5, 0.1, 0.98
_BARS_IN, _BARS_HEIGHT_IN = 3.3, 1.15
_LINE_IN, _HEADING_IN, _AFTER_IN = 0.165, 0.27, 0.3
_NUM_HEADS, _NUM_NEIGHBOURS = 4, 4
_NEIGHBOUR_IN = 1.3
_CAPTION_IN, _HEAD_CAPTION_IN = 0.6, 0.95  # what captions need below narrow pictures
_LONGEST_NAME = 100
_SMALL_PX, _KEY_IN = 330, 1.2


class _Panel(NamedTuple):
    image: Image.Image
    heading: str
    note: str
    most: int | None = None  # of what is counted, in the brightest colour
    unit: str = ""


def explain_figure(explanation: Explanation, *, layer: int | None = None) -> Figure:
    """Draw an explanation; `layer`, from 0, is whose strongest heads are shown: the one with most key tokens if None.

    Raises:
        ArgumentError: there is no such layer.
    """
    votes = explanation.votes
    if layer is None:
        layer = int(votes.key_picks.argmax())
    if not 0 <= layer < votes.num_layers:
        raise ArgumentError(f"layer={layer + 1} does not vote: give one of the {votes.num_layers} that do, from 1")
    panels = _main_panels(explanation)
    sizes = [_fitted(panel.image, _PANEL_IN, _PANEL_IN) for panel in panels]
    columns = [max(width, _NARROWEST_IN) for width, _ in sizes]
    content = sum(columns) + len(columns) * _GAP_IN + _TEXT_IN
    heights = [_panel_height(*each) for each in zip(panels, sizes, columns, strict=True)]
    page = _Page(explanation, content, main=max(heights))
    figure = style.new_figure(content + 2 * _MARGIN_IN, page.height)
    style.add_heading(figure, finding(explanation), _subtitle(explanation), left_in=_MARGIN_IN, width_in=content)
    left = _MARGIN_IN
    for panel, size, column in zip(panels, sizes, columns, strict=True):
        _draw_panel(figure, panel, left, size, column)
        left += column + _GAP_IN
    _draw_answer(figure, explanation, left)
    _draw_layers(figure, explanation, page)
    _draw_heads(figure, explanation, layer, page)
    _draw_budget(figure, explanation, page)
    _draw_evidence(figure, explanation.evidence, page)
    return figure


class _Page:
    """Where the rows of a page begin, in inches from its top."""

    def __init__(self, explanation: Explanation, content: float, *, main: float) -> None:
        self.content = content
        num_layers = explanation.votes.num_layers
        small = in_view(explanation.photograph, explanation.view)
        narrowest = max(_fitted(small, _SMALLEST_IN, _SMALL_IN)[0], _CAPTION_IN) + _SMALL_GAP_IN
        most = min(num_layers, int((content + _SMALL_GAP_IN) / narrowest))
        num_rows = -(-num_layers // most)
        self.columns = -(-num_layers // num_rows)  # rows equally long
        side = min((content + _SMALL_GAP_IN) / self.columns - _SMALL_GAP_IN, _SMALL_IN)
        self.small = _fitted(small, side, _SMALL_IN)
        self.head = _fitted(small, _SMALL_IN, _SMALL_IN)
        self.layers = _HEADER_IN + _HEADING_IN + max(main, _answer_height(explanation)) + _AFTER_IN
        self.row = self.small[1] + 2 * _LINE_IN + 0.13
        self.heads = self.layers + _HEADING_IN + num_rows * self.row + 0.15
        self.evidence = self.heads + _HEADING_IN + max(self.head[1] + 2 * _LINE_IN, _BARS_HEIGHT_IN + 0.4) + _AFTER_IN
        shown = _evidence_height(explanation.evidence) + _HEADING_IN + 3 * _LINE_IN + 0.2
        self.height = self.evidence + (shown if explanation.evidence else 0.0)


def _main_panels(explanation: Explanation) -> list[_Panel]:
    votes, view, photograph = explanation.votes, explanation.view, explanation.photograph
    what, why = ("Final votes", "") if votes.has_second_vote else ("Selections", "There is no second vote. ")
    seen = (
        ""
        if (view.left, view.top, view.right, view.bottom) == (0, 0, 1, 1)
        else "The pale edge is not seen by the model."
    )
    panels = [
        _Panel(frame_view(photograph, view), "Photograph", seen),
        _Panel(
            vote_overlay(photograph, votes.final, view=view, outlined=votes.is_selected()),
            what,
            f"{why}Outlined: the patches of the {sum(votes.budget):,} selected tokens.",
            most=int(votes.final.max()),
            unit="votes" if votes.has_second_vote else "selections",
        ),
    ]
    if (contrast := explanation.contrast) is not None:
        first, second = readable(contrast.class_a), readable(contrast.class_b)
        heading = f"Why not {second}" if contrast.class_a == explanation.class_name else f"Why {first} and not {second}"
        note = f"Blue speaks for {first}, orange for {second}. {tell_contrast(contrast)}."
        panels.append(_Panel(contrast_overlay(photograph, contrast.contributions, view=view), heading, note))
    return panels


def _note(panel: _Panel, column: float) -> str:
    return style.fit_text(panel.note, width_in=column, max_lines=9, size=style.SMALL_PT)


def _panel_height(panel: _Panel, size: tuple[float, float], column: float) -> float:
    """Return how high a picture with its key and its note is."""
    num_lines = (panel.most is not None) + 1 + _note(panel, column).count("\n")
    return size[1] + 0.1 + num_lines * _LINE_IN


def _draw_panel(figure: Figure, panel: _Panel, left: float, size: tuple[float, float], column: float) -> None:
    heading = style.fit_text(panel.heading, width_in=column, max_lines=1, size=style.TEXT_PT, bold=True)
    style.add_text(figure, heading, left, _HEADER_IN, bold=True)
    top = _HEADER_IN + _HEADING_IN
    show_image(figure, panel.image, Cell(left, top, *size))
    below = top + size[1] + 0.1
    if panel.most is not None:
        below = _draw_key(figure, panel.most, panel.unit, left, below)
    style.add_text(figure, _note(panel, column), left, below, size=style.SMALL_PT, color=style.MUTED)


def _draw_key(figure: Figure, most: int, unit: str, left: float, top: float) -> float:
    """Draw the colours of one vote to most votes; return where it goes on."""
    style.add_text(figure, "1", left, top - 0.03, size=style.SMALL_PT, color=style.MUTED)
    axes = style.add_axes(figure, left + 0.15, top, _KEY_IN, 0.1)
    axes.imshow(vote_colors()[None], aspect="auto")
    axes.set_axis_off()
    style.add_text(
        figure, f"{most:,} {unit}", left + _KEY_IN + 0.22, top - 0.03, size=style.SMALL_PT, color=style.MUTED
    )
    return top + _LINE_IN + 0.02


def _subtitle(explanation: Explanation) -> str:
    """Return the end of the image's name: what a long path ends in tells more than how it begins."""
    name = explanation.image_id
    return name if len(name) <= _LONGEST_NAME else "…" + name[-_LONGEST_NAME:]


def _answer_lines(explanation: Explanation) -> list[str]:
    notes = [] if explanation.is_calibrated else ["The probabilities are not calibrated."]
    said = [tell_set(explanation), tell_verdict(explanation), *notes, *map(_as_sentence, explanation.notes)]
    return [style.fit_text(text, width_in=_TEXT_IN, max_lines=5, size=style.SMALL_PT) for text in said if text]


def _as_sentence(note: str) -> str:
    return note[:1].upper() + note[1:]


def _answer_height(explanation: Explanation) -> float:
    lines = sum(1 + text.count("\n") for text in _answer_lines(explanation)) + len(_answer_lines(explanation)) * 0.5
    return len(explanation.ranked.class_names) * 0.36 + 0.1 + lines * _LINE_IN


def _draw_answer(figure: Figure, explanation: Explanation, left: float) -> None:
    """Write the likeliest classes with bars, and what the set and the verdict are."""
    how = "calibrated " if explanation.is_calibrated else ""
    style.add_text(figure, f"Likeliest classes, {how}probabilities", left, _HEADER_IN, bold=True)
    top = _HEADER_IN + _HEADING_IN
    ranked, in_set = explanation.ranked, explanation.prediction_set
    members = set(in_set.class_names) if in_set is not None else set(ranked.class_names)
    for name, probability in zip(ranked.class_names, ranked.probabilities, strict=True):
        color = style.RIGHT if name in members else style.MUTED
        written = style.fit_text(readable(name), width_in=_TEXT_IN - 0.55, max_lines=1, size=style.TEXT_PT)
        style.add_text(figure, written, left, top)
        style.add_text(figure, percent(probability), left + _TEXT_IN, top, align="right")
        axes = style.add_axes(figure, left, top + 0.19, _TEXT_IN, 0.07)
        axes.barh([0], [probability], color=color, height=1.0)
        axes.set(xlim=(0, 1), ylim=(-0.5, 0.5), xticks=[], yticks=[], facecolor=style.GRID)
        axes.spines[:].set_visible(False)
        top += 0.36
    top += 0.1
    for number, text in enumerate(_answer_lines(explanation)):
        color = style.RIGHT if number == 0 and in_set is not None else style.INK  # as the bars of its classes
        style.add_text(figure, text, left, top, size=style.SMALL_PT, color=color)
        top += (1 + text.count("\n") + 0.5) * _LINE_IN


def _draw_layers(figure: Figure, explanation: Explanation, page: _Page) -> None:
    votes = explanation.votes
    num_heads, most = votes.head_votes.shape[1], int(votes.ballots.max())
    _head_row(
        figure,
        "Ballot of each layer",
        f"votes of its {num_heads} heads for the patches, brightest {most:,}; outlined are those that it passes on",
        page.layers,
        page.content,
    )
    seen = in_view(explanation.photograph, explanation.view)
    for layer in range(votes.num_layers):
        row, column = divmod(layer, page.columns)
        left = _MARGIN_IN + column * (max(page.small[0], _CAPTION_IN) + _SMALL_GAP_IN)
        top = page.layers + _HEADING_IN + row * page.row
        picture = vote_overlay(
            seen, votes.ballots[layer], outlined=votes.is_selected(layer), most=most, side_px=_SMALL_PX
        )
        show_image(figure, picture, Cell(left, top, *page.small))
        _caption(figure, [f"layer {layer + 1}"], left, top + page.small[1], max(page.small[0], _CAPTION_IN))


def _draw_heads(figure: Figure, explanation: Explanation, layer: int, page: _Page) -> None:
    votes = explanation.votes
    final = "final votes" if votes.has_second_vote else "selections"
    heads = strongest_heads(votes, layer)[: min(_NUM_HEADS, _num_fitting(page))]
    _head_row(
        figure,
        f"Strongest heads of layer {layer + 1}",
        f"by the share of the {final} on patches they voted for",
        page.heads,
        page.content - _BARS_IN - _GAP_IN,
    )
    seen = in_view(explanation.photograph, explanation.view)
    for number, (head, share) in enumerate(heads):
        left = _MARGIN_IN + number * (max(page.head[0], _HEAD_CAPTION_IN) + _SMALL_GAP_IN)
        top = page.heads + _HEADING_IN
        cast = votes.head_votes[layer, head].astype(np.float32)
        show_image(figure, vote_overlay(seen, cast, side_px=_SMALL_PX), Cell(left, top, *page.head))
        _caption(
            figure,
            [f"head {head + 1}: {percent(share)}"],
            left,
            top + page.head[1],
            max(page.head[0], _HEAD_CAPTION_IN),
        )


def _num_fitting(page: _Page) -> int:
    return max(int((page.content - _BARS_IN - _GAP_IN) / (max(page.head[0], _HEAD_CAPTION_IN) + _SMALL_GAP_IN)), 1)


def _draw_budget(figure: Figure, explanation: Explanation, page: _Page) -> None:
    """Draw how many tokens each layer passes on, and how many of these won the second vote."""
    votes = explanation.votes
    left = _MARGIN_IN + page.content - _BARS_IN
    note = "key tokens in blue" if votes.has_second_vote else ""
    _head_row(figure, "Tokens by layer", note, page.heads, _BARS_IN, left=left)
    axes = style.add_axes(figure, left + 0.3, page.heads + _HEADING_IN + 0.03, _BARS_IN - 0.3, _BARS_HEIGHT_IN)
    numbers = np.arange(1, votes.num_layers + 1)
    axes.bar(numbers, votes.budget, color="#c9ced6", width=0.8)
    if votes.has_second_vote:
        axes.bar(numbers, votes.key_picks, color=style.RIGHT, width=0.8)
    style.plain_axes(axes)
    axes.grid(visible=False, axis="x")
    _set_ticks(axes, votes.num_layers)


def _set_ticks(axes: Axes, num_layers: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=min(num_layers, 12), integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_xlim(0.4, num_layers + 0.6)
    axes.set_xlabel("layer", fontproperties=style.font(style.SMALL_PT), color=style.MUTED, labelpad=1)


def _draw_evidence(figure: Figure, evidence: Sequence[Evidence], page: _Page) -> None:
    """Draw the nearest training photographs of each class, side by side."""
    for number, group in enumerate(evidence):
        width = (page.content - (len(evidence) - 1) * _GAP_IN) / len(evidence)
        left = _MARGIN_IN + number * (width + _GAP_IN)
        heading = f"Nearest training photographs of {readable(group.class_name)}"
        fitted = style.fit_text(heading, width_in=width, max_lines=1, size=style.TEXT_PT, bold=True)
        style.add_text(figure, fitted, left, page.evidence, bold=True)
        cell = min(width / _NUM_NEIGHBOURS - _SMALL_GAP_IN, _NEIGHBOUR_IN)
        foot = page.evidence + _HEADING_IN + _evidence_height(evidence)
        for place, neighbour in enumerate(group.neighbours[:_NUM_NEIGHBOURS]):
            _draw_neighbour(figure, neighbour, left + place * (cell + _SMALL_GAP_IN), foot, cell)
        if not group.neighbours:
            _caption(figure, ["there is none"], left, page.evidence + _HEADING_IN, width)


def _evidence_height(evidence: Sequence[Evidence]) -> float:
    """Return how high the highest picture is."""
    pictures = [near.picture for group in evidence for near in group.neighbours[:_NUM_NEIGHBOURS]]
    return max((_fitted(one, _NEIGHBOUR_IN, _NEIGHBOUR_IN)[1] for one in pictures if one is not None), default=0.0)


def _draw_neighbour(figure: Figure, neighbour: Neighbour, left: float, foot: float, cell: float) -> None:
    if neighbour.picture is not None:
        width, height = _fitted(neighbour.picture, cell, _NEIGHBOUR_IN)
        show_image(figure, neighbour.picture, Cell(left, foot - height, width, height))
    _caption(figure, [f"{neighbour.distance:.3g} away", PurePath(neighbour.image_id).name], left, foot, cell)


def _head_row(figure: Figure, heading: str, note: str, top: float, width: float, *, left: float = _MARGIN_IN) -> None:
    style.add_text(figure, heading, left, top, bold=True)
    indent = 1.03 * style.text_width_in(heading, size=style.TEXT_PT, bold=True) + 0.12  # as drawn it is wider
    fitted = style.fit_text(note, width_in=max(width - indent, 0.3), max_lines=1, size=style.TEXT_PT)
    style.add_text(figure, fitted, left + indent, top, color=style.MUTED)


def _caption(figure: Figure, lines: Sequence[str], left: float, top: float, width: float) -> None:
    fitted = [style.fit_text(line, width_in=width, max_lines=1, size=style.SMALL_PT) for line in lines]
    style.add_text(figure, "\n".join(fitted), left, top + 0.05, size=style.SMALL_PT, color=style.MUTED)


def _fitted(image: Image.Image, width: float, height: float) -> tuple[float, float]:
    """Return width and height in inches of an image made to fit a box; a line of either side is always seen."""
    scale = min(width / image.width, height / image.height)
    return max(image.width * scale, 0.05), max(image.height * scale, 0.05)
