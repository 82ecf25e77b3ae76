"""The pictures: example predictions, contact sheets, training curves. Each returns a matplotlib Figure."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray
from PIL import Image

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.files import atomic_write
from finevote.types import Box

Row = Mapping[str, Any]

_CELL_IN = 2.2
_GAP_IN = 0.2
_MARGIN_IN = 0.35
_HEADER_IN = 0.8
_LINE_IN = 0.175
_MAX_SIDE_PX = 480
_LARGEST_DISC_PT = 15.0
_MIN_WIDTH_IN = 5.0
_PLOT_LEFT_IN, _PLOT_TOP_IN, _PLOT_WIDTH_IN, _PLOT_HEIGHT_IN, _PLOT_STEP_IN = 0.7, 1.45, 2.85, 2.2, 3.6
_LOSSES = {"loss": "total", "loss_part": "part", "loss_complement": "complement", "loss_triplet": "triplet"}
_ACCURACIES = {"train_top1": "training", "val_top1": "validation"}


@dataclass(frozen=True)
class Example:
    """One prediction to draw.

    `image` is what the model saw of the photograph, in its own proportions; `votes` (rows, columns) are the final votes
    on the patches of that view, or None.
    """

    image: Image.Image
    true_name: str
    predicted_name: str
    probability: float
    votes: NDArray[np.floating[Any]] | None = None

    @property
    def is_right(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.true_name == self.predicted_name


def example_grid(examples: Sequence[Example], *, title: str, subtitle: str = "", num_columns: int = 4) -> Figure:
    """Draw photographs with the predicted class and its probability; wrong ones also say the true class.

    Final votes are drawn as discs on their patches, of an area in proportion to their number.

    Raises:
        ArgumentError: there are no examples.
    """
    answers = [_answer(example) for example in examples]
    truths = ["" if example.is_right else _fit(f"is {_readable(example.true_name)}") for example in examples]
    captions = [_join(lines) for lines in zip(answers, truths, strict=True)]
    figure, cells = _sheet([example.image for example in examples], captions, num_columns)
    _head(figure, title, subtitle)
    for example, answer, truth, cell in zip(examples, answers, truths, cells, strict=True):
        color = style.RIGHT if example.is_right else style.WRONG
        axes = show_image(figure, example.image, cell, border=color)
        if example.votes is not None:
            _mark_votes(axes, example.votes, cell)
        style.add_text(figure, answer, cell.left, cell.caption_top, color=color, bold=True)
        style.add_text(figure, truth, cell.left, cell.caption_top + _LINE_IN * (1 + answer.count("\n")))
    return figure


def contact_sheet(
    images: Sequence[Image.Image],
    titles: Sequence[str],
    boxes: Sequence[Sequence[Box]] | None = None,
    *,
    title: str = "",
    subtitle: str = "",
    num_columns: int = 4,
) -> Figure:
    """Draw images with a caption each and, where given, their boxes; equal names have equal colours, told in a key.

    Raises:
        ArgumentError: there are no images, or not as many titles or box lists as images.
    """
    all_boxes = boxes if boxes is not None else [()] * len(images)
    if not len(images) == len(titles) == len(all_boxes):
        raise ArgumentError(f"{len(images)} images, {len(titles)} titles and {len(all_boxes)} box lists: give as many")
    names = sorted({box.name for image_boxes in all_boxes for box in image_boxes})
    colors = {name: style.SERIES[number % len(style.SERIES)] for number, name in enumerate(names)}
    captions = [_fit(_readable(caption)) for caption in titles]
    figure, cells = _sheet(images, captions, num_columns)
    _head(figure, title, subtitle, colors)
    for image, caption, image_boxes, cell in zip(images, captions, all_boxes, cells, strict=True):
        axes = show_image(figure, image, cell)
        for box in image_boxes:
            _outline(axes, box, colors[box.name])
        style.add_text(figure, caption, cell.left, cell.caption_top)
    return figure


def training_curves(rows: Sequence[Row], *, subtitle: str = "") -> Figure:
    """Draw losses, accuracies and learning rates over epochs; the title says the best validation accuracy.

    Args:
        rows: of metrics.jsonl; those with "kind": "epoch" are drawn, and a figure that they lack is left out.
        subtitle: below the title: the setting that the figures hold for.

    Raises:
        ArgumentError: no epoch is finished.
    """
    epochs = [row for row in rows if row["kind"] == "epoch"]
    if not epochs:
        raise ArgumentError("there is nothing to draw: no epoch is finished")
    figure = style.new_figure(_PLOT_LEFT_IN + 3 * _PLOT_STEP_IN, _PLOT_TOP_IN + _PLOT_HEIGHT_IN + 0.6)
    style.add_text(figure, _finding(epochs), _PLOT_LEFT_IN, 0.2, size=style.TITLE_PT, bold=True)
    style.add_text(figure, subtitle, _PLOT_LEFT_IN, 0.48, color=style.MUTED)
    loss, accuracy, rate = (
        _panel(figure, number, title)
        for number, title in enumerate(("Training loss", "Top-1 accuracy", "Learning rate"))
    )
    num_terms = sum(any(name in row for row in epochs) for name in _LOSSES)
    _draw(loss, epochs, _LOSSES if num_terms > 2 else {"loss": "total"})
    _draw(accuracy, epochs, _ACCURACIES)
    _mark_best(accuracy, epochs)
    same_rate = all(row.get("lr_min") == row.get("lr_max") for row in epochs)
    _draw(
        rate, epochs, {"lr_max": "all groups"} if same_rate else {"lr_max": "highest group", "lr_min": "lowest group"}
    )
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    accuracy.set_ylim(0, 1.03)  # room for the ring at 100%
    rate.yaxis.set_major_formatter(StrMethodFormatter("{x:.3g}"))
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, whole or not at all, and return the path."""
    buffer = io.BytesIO()
    with style.quiet_about_glyphs():
        figure.savefig(buffer, format="png", dpi=style.DPI)
    atomic_write(path, buffer.getvalue())
    return path


class Cell(NamedTuple):
    """Where an image goes, in inches from the figure's left and top."""

    left: float
    top: float
    width: float
    height: float

    @property
    def caption_top(self) -> float:
        """Where what is written below the image begins."""
        return self.top + self.height + 0.07


def _sheet(images: Sequence[Image.Image], captions: Sequence[str], num_columns: int) -> tuple[Figure, list[Cell]]:
    """Return a figure and the cell of each image; rows are as high as their images and captions ask for."""
    if not images:
        raise ArgumentError("there is nothing to draw: give at least one image")
    num_columns = min(num_columns, len(images))
    sizes = [_fitted_size(image) for image in images]
    cells: list[Cell] = []
    top = _HEADER_IN
    for start in range(0, len(images), num_columns):
        row = slice(start, start + num_columns)
        foot = top + max(height for _, height in sizes[row])
        for column, (width, height) in enumerate(sizes[row]):
            cells.append(Cell(_MARGIN_IN + column * (_CELL_IN + _GAP_IN), foot - height, width, height))
        num_lines = max(1 + caption.count("\n") for caption in captions[row])
        top = foot + num_lines * _LINE_IN + 2 * _GAP_IN
    width = max(2 * _MARGIN_IN + num_columns * (_CELL_IN + _GAP_IN) - _GAP_IN, _MIN_WIDTH_IN)
    return style.new_figure(width, top), cells


def _head(figure: Figure, title: str, subtitle: str, key: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write the title, and below it the subtitle and, at the right, as much as fits of the key of colours."""
    width = figure.get_size_inches()[0] - 2 * _MARGIN_IN
    heading = style.fit_text(title, width_in=width, max_lines=1, size=style.TITLE_PT, bold=True)
    style.add_text(figure, heading, _MARGIN_IN, 0.2, size=style.TITLE_PT, bold=True)
    right = _MARGIN_IN + width
    for name, color in reversed(list(key.items())):
        entry = f"\N{WHITE SQUARE} {_readable(name)}"
        if right - style.text_width_in(entry, size=style.TEXT_PT, bold=True) < _MARGIN_IN:
            break
        style.add_text(figure, entry, right, 0.48, color=color, bold=True, align="right")
        right -= style.text_width_in(f"{entry}   ", size=style.TEXT_PT, bold=True)
    note = style.fit_text(subtitle, width_in=max(right - _MARGIN_IN, 0.0), max_lines=1, size=style.TEXT_PT)
    style.add_text(figure, note, _MARGIN_IN, 0.48, color=style.MUTED)


def _fitted_size(image: Image.Image) -> tuple[float, float]:
    """Return width and height in inches of the image made to fit a square cell."""
    longest = max(image.size)
    return _CELL_IN * image.width / longest, _CELL_IN * image.height / longest


def show_image(figure: Figure, image: Image.Image, cell: Cell, *, border: str | None = None) -> Axes:
    """Draw an image in its cell, with or without a coloured border; the axes span 0 to 1, downwards."""
    axes = style.add_axes(figure, cell.left, cell.top, cell.width, cell.height)
    small = image.copy()
    small.thumbnail((_MAX_SIDE_PX, _MAX_SIDE_PX), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(small), extent=(0, 1, 1, 0), interpolation="antialiased", aspect="auto")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=border is not None, color=border or style.INK, linewidth=3.0)
    return axes


def _mark_votes(axes: Axes, votes: NDArray[np.floating[Any]], cell: Cell) -> None:
    rows, columns = votes.shape
    row, column = np.nonzero(votes > 0)
    side_pt = min(cell.width / columns, cell.height / rows) * 72
    areas = votes[row, column] / max(votes.max(), 1e-9) * min(0.75 * side_pt, _LARGEST_DISC_PT) ** 2
    x, y = (column + 0.5) / columns, (row + 0.5) / rows
    axes.scatter(x, y, s=areas, color=style.VOTE, edgecolors=style.INK, linewidths=0.6, alpha=0.6)


def _outline(axes: Axes, box: Box, color: str) -> None:
    corner, size = (box.left, box.top), (box.right - box.left, box.bottom - box.top)
    for edge, width in (("white", 3.6), (color, 1.8)):
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=edge, linewidth=width))


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _fit(text: str, *, bold: bool = False) -> str:
    return style.fit_text(text, width_in=_CELL_IN, max_lines=2, size=style.TEXT_PT, bold=bold)


def _answer(example: Example) -> str:
    sign = style.TICK if example.is_right else style.CROSS
    return _fit(f"{sign} {example.probability:.0%} {_readable(example.predicted_name)}", bold=True)


def _join(lines: Iterable[str]) -> str:
    return "\n".join(line for line in lines if line)


def _finding(epochs: Sequence[Row]) -> str:
    """Return what the curves say, in a sentence."""
    best = _best(epochs)
    if best is None:
        top_1 = f"training top-1 {epochs[-1]['train_top1']:.1%}, " if "train_top1" in epochs[-1] else ""
        return f"Epoch {epochs[-1]['epoch']}: {top_1}not validated"
    return f"Validation top-1 peaks at {best['val_top1']:.1%} in epoch {best['epoch']} of {epochs[-1]['epoch']}"


def _best(epochs: Sequence[Row]) -> Row | None:
    """Return the first epoch with the highest validation accuracy."""
    return max((row for row in epochs if "val_top1" in row), key=lambda row: row["val_top1"], default=None)


def _panel(figure: Figure, number: int, title: str) -> Axes:
    left = _PLOT_LEFT_IN + number * _PLOT_STEP_IN
    axes = style.add_axes(figure, left, _PLOT_TOP_IN, _PLOT_WIDTH_IN, _PLOT_HEIGHT_IN)
    style.add_text(figure, title, left, 0.88, bold=True)
    style.plain_axes(axes)
    axes.set_xlabel("epoch", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return axes


def _draw(axes: Axes, epochs: Sequence[Row], names: Mapping[str, str]) -> None:
    for (name, label), color in zip(names.items(), style.SERIES, strict=False):
        points = [(row["epoch"], row[name]) for row in epochs if name in row]
        if points:
            marker = "o" if len(points) < 15 else None
            axes.plot(
                *zip(*points, strict=True), color=color, label=label, linewidth=1.8, marker=marker, markersize=3.5
            )
    if axes.lines:
        _add_key(axes)
    axes.set_xlim(0, max(epochs[-1]["epoch"] * 1.04, 2))
    axes.set_ylim(bottom=0)


def _add_key(axes: Axes) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=len(axes.lines),
        frameon=False,
        prop=style.font(style.SMALL_PT),
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=0.9,
        borderpad=0.2,
    )


def _mark_best(axes: Axes, epochs: Sequence[Row]) -> None:
    best = _best(epochs)
    if best is not None:
        axes.plot(best["epoch"], best["val_top1"], "o", color="white", markeredgecolor=style.INK, markersize=7)
