"""The pictures of what goes on inside: how alike layers are, how the budget moved, who carries the votes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from finevote.explanation import style

Matrix = NDArray[np.floating[Any]]
_MAP = "cividis"  # even in lightness, and alike to colour-blind readers
_MARGIN_IN, _TOP_IN = 0.45, 1.0
_CELL_IN, _LEAST_MAP_IN, _MOST_MAP_IN = 0.5, 2.3, 5.2
_MOST_NUMBERED = 13  # layers of a map with a number in every cell
_LABEL_IN = 0.95
_LEAST_WIDTH_IN = 7.6
_LINE_LEFT_IN, _LINE_WIDTH_IN, _LINE_HEIGHT_IN, _LABEL_STEP_IN = 0.75, 6.4, 3.2, 0.165


class Part(NamedTuple):
    """A layer's share of what was offered and of the key tokens, the latter with the ends of its 95% interval."""

    offered: float
    key: float
    low: float
    high: float


def cka_maps(maps: Mapping[str, Mapping[str, Matrix]], names: Sequence[str], *, title: str, subtitle: str) -> Figure:
    """Draw maps (S, S) of CKA between layers: a row for each kind of features, a column for each estimate.

    Args:
        maps: by kind and estimate, each as it is to be called; NaN cells are left grey.
        names: of the layers.
        title: above all.
        subtitle: below it.
    """
    side = float(np.clip(len(names) * _CELL_IN, _LEAST_MAP_IN, _MOST_MAP_IN))
    kinds, estimates = list(maps), list(next(iter(maps.values())))
    step_x, step_y = side + 0.35, side + 0.65
    left = _MARGIN_IN + _LABEL_IN
    width = max(left + len(estimates) * step_x + 0.75, _LEAST_WIDTH_IN)
    figure = style.new_figure(width, _TOP_IN + len(kinds) * step_y + 0.25)
    style.add_heading(figure, title, subtitle, left_in=_MARGIN_IN, width_in=width - 2 * _MARGIN_IN, max_lines=2)
    for row, kind in enumerate(kinds):
        for column, estimate in enumerate(estimates):
            place = (left + column * step_x, _TOP_IN + 0.25 + row * step_y)
            style.add_text(figure, f"{kind}, {estimate}", place[0], place[1] - 0.24, bold=True)
            axes = style.add_axes(figure, *place, side, side)
            _draw_map(axes, maps[kind][estimate], names, cell_in=side / len(names), with_rows=column == 0)
    bar = style.add_axes(figure, left + len(estimates) * step_x - 0.1, _TOP_IN + 0.25, 0.16, side)
    _draw_scale(bar, 0.0, 1.0)
    return figure


def budget_lines(epochs: Sequence[float], counts: Sequence[Sequence[int]], *, title: str, subtitle: str) -> Figure:
    """Draw how many tokens each layer forwards, over epochs, one line a layer with its number at its end.

    Args:
        epochs: (n,) done.
        counts: (n, S) tokens.
        title: above all.
        subtitle: below it.
    """
    table = np.asarray(counts)
    height = max(_LINE_HEIGHT_IN, table.shape[1] * _LABEL_STEP_IN)
    figure = style.new_figure(_LINE_LEFT_IN + _LINE_WIDTH_IN + 1.0, 0.95 + height + 0.6)
    width = _LINE_WIDTH_IN + 0.9
    style.add_heading(figure, title, subtitle, left_in=_MARGIN_IN, width_in=width, max_lines=1)
    axes = style.add_axes(figure, _LINE_LEFT_IN, 0.95, _LINE_WIDTH_IN, height)
    style.plain_axes(axes)
    colors = _by_depth(table.shape[1])
    for layer, color in enumerate(colors):
        axes.plot(epochs, table[:, layer], color=color, linewidth=1.8, drawstyle="steps-post")
    reach = max(float(table.max()) * 1.06, 1.0)
    axes.set_ylim(0, reach)
    axes.set_xlim(0, max(epochs[-1], 1e-9))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("epoch", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    axes.set_ylabel("tokens forwarded", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    places = _spread(table[-1] / reach * height, gap=_LABEL_STEP_IN, most=height)
    for layer, (place, color) in enumerate(zip(places, colors, strict=True)):
        top = 0.95 + height - place - 0.075
        text = f"layer {layer + 1}: {table[-1, layer]}"
        style.add_text(figure, text, _LINE_LEFT_IN + _LINE_WIDTH_IN + 0.08, top, size=style.SMALL_PT, color=color)
    return figure


def vote_shares(parts: Sequence[Part], heads: Matrix, *, area: float, title: str, subtitle: str) -> Figure:
    """Draw each layer's share of the key tokens beside what it offered, and how far its heads agree with the outcome.

    Args:
        parts: one a layer.
        heads: (S, H) share of a head's votes on patches of key tokens.
        area: share of the grid that these cover.
        title: above all.
        subtitle: below it, up to two lines.
    """
    num_layers, num_heads = heads.shape
    height = max(0.42 * num_layers, 1.3)
    map_width = float(np.clip(num_heads * 0.55, 1.9, 7.0))
    bars = 3.0
    left = _MARGIN_IN + 0.75
    width = max(left + bars + 0.6 + map_width + 1.1, _LEAST_WIDTH_IN)
    figure = style.new_figure(width, _TOP_IN + 0.4 + height + 0.6)
    style.add_heading(figure, title, subtitle, left_in=_MARGIN_IN, width_in=width - 2 * _MARGIN_IN, max_lines=2)
    top = _TOP_IN + 0.4
    style.add_text(figure, "Share of the key tokens", left, top - 0.27, bold=True)
    axes = style.add_axes(figure, left, top, bars, height)
    _draw_parts(axes, parts)
    right = left + bars + 0.6
    style.add_text(figure, "Votes on patches of key tokens", right, top - 0.27, bold=True)
    axes = style.add_axes(figure, right, top, map_width, height)
    _draw_heads(axes, heads)
    bar = style.add_axes(figure, right + map_width + 0.12, top, 0.16, height)
    most = max(float(heads.max()), area, 1e-9)
    _draw_scale(bar, 0.0, most, mark=area)
    return figure


def _draw_map(axes: Axes, values: Matrix, names: Sequence[str], *, cell_in: float, with_rows: bool) -> None:
    axes.set_facecolor(style.GRID)
    axes.imshow(np.ma.masked_invalid(values), cmap=_MAP, vmin=0, vmax=1, aspect="auto")
    places = _places(len(names))
    axes.set_xticks(places, [_short(names[place]) for place in places])
    axes.set_yticks(places, [names[place] for place in places] if with_rows else [""] * len(places))
    _quiet(axes)
    if len(names) <= _MOST_NUMBERED:
        size = min(style.SMALL_PT, cell_in * 72 / 3.4)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            text = f"{value:.2f}" if np.isfinite(value) else "-"
            _write_cell(axes, column, row, text, is_light=bool(np.isfinite(value) and value > 0.55), size=size)


def _draw_parts(axes: Axes, parts: Sequence[Part]) -> None:
    style.plain_axes(axes)
    rows = np.arange(len(parts))
    axes.barh(rows, [part.key for part in parts], height=0.62, color=style.RIGHT)
    for row, part in enumerate(parts):
        axes.plot([part.low, part.high], [row, row], color=style.INK, linewidth=1.2)
        axes.plot([part.offered] * 2, [row - 0.42, row + 0.42], color=style.WRONG, linewidth=2.2)
    axes.set_yticks(rows, [f"layer {row + 1}" for row in rows])
    axes.set_ylim(len(parts) - 0.5, -0.5)
    axes.set_xlim(0, max(max(part.high, part.offered) for part in parts) * 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(visible=False, axis="y")


def _draw_heads(axes: Axes, heads: Matrix) -> None:
    num_layers, num_heads = heads.shape
    most = max(float(heads.max()), 1e-9)
    axes.imshow(heads, cmap=_MAP, vmin=0, vmax=most, aspect="auto")
    places = _places(num_heads)
    axes.set_xticks(places, [str(place + 1) for place in places])
    axes.set_yticks([])
    axes.set_xlabel("head", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    _quiet(axes)
    if num_heads <= 16:
        for row, column in np.ndindex(num_layers, num_heads):
            share = float(heads[row, column])
            _write_cell(axes, column, row, f"{share:.0%}", is_light=share > 0.55 * most, size=style.SMALL_PT - 0.5)


def _write_cell(axes: Axes, x: float, y: float, text: str, *, is_light: bool, size: float) -> None:
    color = style.INK if is_light else "white"
    axes.text(x, y, text, ha="center", va="center", color=color, fontproperties=style.font(size))


def _draw_scale(axes: Axes, low: float, high: float, *, mark: float | None = None) -> None:
    axes.imshow(np.linspace(1, 0, 256)[:, None], cmap=_MAP, aspect="auto", extent=(0, 1, low, high))
    axes.set_xticks([])
    axes.yaxis.tick_right()
    if mark is None:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    else:
        axes.axhline(mark, color=style.WRONG, linewidth=2.2)
        axes.set_yticks([low, mark, high], [f"{low:.0%}", f"area {mark:.0%}", f"{high:.0%}"])
    _quiet(axes)


def _quiet(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=style.INK, labelsize=style.SMALL_PT, labelfontfamily=style.FAMILY)


def _short(name: str) -> str:
    """Return a layer's name as it fits below a column: its number, or the head of its name."""
    number = name.rpartition(" ")[2]
    return number if number.isdecimal() else name[:3]


def _places(count: int) -> list[int]:
    """Return which of so many rows are labelled: all, or every second, fifth, ... of many."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, count) if count / step <= 16)
    return list(range(0, count, step))


def _by_depth(count: int) -> list[Any]:
    """Return a colour a layer: apart where they are few, dark to light with depth where they are many."""
    if count <= len(style.SERIES):
        return list(style.SERIES[:count])
    return [colormaps["viridis"](0.85 * layer / (count - 1)) for layer in range(count)]


def _spread(heights: Sequence[float] | Matrix, *, gap: float, most: float) -> list[float]:
    """Return heights moved apart to at least `gap`, in their order, and kept between 0 and `most` where they fit."""
    order = np.argsort(heights, kind="stable")
    placed: list[float] = []
    for height in np.asarray(heights, np.float64)[order]:
        placed.append(max(float(height), placed[-1] + gap) if placed else max(float(height), 0.0))
    excess = max(placed[-1] - most, 0.0)
    for number in reversed(range(len(placed))):
        limit = most - gap * (len(placed) - 1 - number)
        placed[number] = min(placed[number], limit) if excess else placed[number]
    result = np.empty(len(placed))
    result[order] = placed
    return [float(value) for value in result]
