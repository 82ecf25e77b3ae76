"""Time and memory against the number of tokens, a row of panels for each circumstance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from finevote.bench.plan import Action, What
from finevote.bench.results import Sample
from finevote.explanation import style

Row = tuple[str, str, str, str, int]  # backbone, precision, mode, device, batch
_QUANTITIES = {"time": "ms an image", "peak memory": "MiB, peak"}
_KNOWN = ("plain", "plain_cls", "ours")
_MARGIN_IN, _TOP_IN, _LEFT_IN = 0.35, 1.1, 0.85
_WIDTH_IN, _HEIGHT_IN, _STEP_IN, _ROW_IN = 2.3, 1.9, 3.2, 3.05


def plot_growth(samples: Sequence[Sample]) -> Figure | None:
    """Draw every contender's time and peak memory over the tokens; None where nothing was measured at two sizes."""
    rows = list(_rows(samples))
    columns = [
        (action, quantity)
        for action in Action
        for quantity in _QUANTITIES
        if any(_curves(samples, row, action, quantity) for row in rows)
    ]
    if not columns:
        return None
    width = _LEFT_IN + len(columns) * _STEP_IN - (_STEP_IN - _WIDTH_IN) + _MARGIN_IN
    figure = style.new_figure(max(width, 6.0), _TOP_IN + len(rows) * _ROW_IN)
    style.add_text(figure, "What it costs, by the number of tokens", _MARGIN_IN, 0.2, size=style.TITLE_PT, bold=True)
    _add_key(figure, samples)
    for number, row in enumerate(rows):
        top = _TOP_IN + number * _ROW_IN
        backbone, precision, mode, device, batch = row
        images = "one image" if batch == 1 else f"{batch} images"
        style.add_text(
            figure, f"{backbone}, {precision}, {mode}, {device}, {images} at once", _MARGIN_IN, top, bold=True
        )
        for column, (action, quantity) in enumerate(columns):
            axes = style.add_axes(figure, _LEFT_IN + column * _STEP_IN, top + 0.5, _WIDTH_IN, _HEIGHT_IN)
            _draw(axes, _curves(samples, row, action, quantity), names=_contenders(samples))
            title = f"{'training step' if action is Action.STEP else 'forward pass'}, {_QUANTITIES[quantity]}"
            style.add_text(figure, title, _LEFT_IN + column * _STEP_IN, top + 0.26, size=style.SMALL_PT)
    return figure


def _rows(samples: Sequence[Sample]) -> Iterator[Row]:
    """Yield the circumstances under which anything was measured at two sizes."""
    for row in dict.fromkeys(_row_of(sample) for sample in samples if _is_of_tokens(sample)):
        if any(_curves(samples, row, action, quantity) for action in Action for quantity in _QUANTITIES):
            yield row


def _row_of(sample: Sample) -> Row:
    return sample.backbone, sample.precision, sample.mode, sample.device, sample.batch or 0


def _is_of_tokens(sample: Sample) -> bool:
    measured = sample.what in {What.STEP, What.MEMORY, What.GROWTH} and sample.value is not None
    return measured and sample.quantity in _QUANTITIES


def _curves(samples: Sequence[Sample], row: Row, action: Action, quantity: str) -> dict[str, list[tuple[int, float]]]:
    """Return the points (N, value) of each contender, by N; empty unless somebody has two.

    Growth with the classes is at one size; the number of classes measured most often is the one drawn.
    """
    chosen = [s for s in samples if _is_of_tokens(s) and _row_of(s) == row]
    chosen = [s for s in chosen if (s.action, s.quantity) == (action, quantity)]
    classes = [sample.num_classes for sample in chosen]
    usual = max(set(classes), key=classes.count, default=None)
    curves: dict[str, dict[int, float]] = {}
    for sample in chosen:
        if sample.num_classes == usual and sample.num_tokens is not None and sample.value is not None:
            scale = 1000 / (sample.batch or 1) if quantity == "time" else 1
            curves.setdefault(sample.contender, {})[sample.num_tokens] = scale * sample.value
    if all(len(points) < 2 for points in curves.values()):
        return {}
    return {name: sorted(points.items()) for name, points in curves.items()}


def _contenders(samples: Sequence[Sample]) -> list[str]:
    others = dict.fromkeys(sample.contender for sample in samples if _is_of_tokens(sample))
    return [*_KNOWN, *(name for name in others if name not in _KNOWN)]


def _draw(axes: Axes, curves: dict[str, list[tuple[int, float]]], *, names: Sequence[str]) -> None:
    style.plain_axes(axes)
    for name, color in zip(names, _colors(), strict=False):
        if name in curves:
            axes.plot(*zip(*curves[name], strict=True), color=color, linewidth=1.8, marker="o", markersize=3.5)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.set_xlabel("tokens", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)


def _add_key(figure: Figure, samples: Sequence[Sample]) -> None:
    left, seen = _MARGIN_IN, {sample.contender for sample in samples if _is_of_tokens(sample)}
    for name, color in zip(_contenders(samples), _colors(), strict=False):
        if name in seen:
            entry = f"\N{BLACK SQUARE} {name}"
            style.add_text(figure, entry, left, 0.58, color=color, bold=True)
            left += style.text_width_in(f"{entry}    ", size=style.TEXT_PT, bold=True)


def _colors() -> tuple[str, ...]:
    """Return a colour for each contender: plain is muted, ours the first of the house, plain_cls the third."""
    first, second, third, *others = style.SERIES
    return style.MUTED, third, first, second, *others
