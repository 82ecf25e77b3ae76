"""Variants one below the other: accuracy with its interval and every seed, and the difference to the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from finevote.errors import ArgumentError
from finevote.explanation import style

_MARGIN_IN, _TOP_IN, _ROW_IN, _PANEL_IN, _GAP_IN, _FOOT_IN = 0.35, 1.2, 0.36, 3.1, 0.35, 0.5
_NAME_IN = 2.6  # at most


class ForestRow(NamedTuple):
    """One variant: mean accuracy and its interval, each seed's accuracy, and the difference to the first, if any.

    `difference` is value, low and high as shares; `stands_out` colours it.
    """

    name: str
    value: float
    low: float
    high: float
    points: tuple[float, ...]
    difference: tuple[float, float, float] | None
    stands_out: bool


def forest_plot(rows: Sequence[ForestRow], *, title: str, subtitle: str = "") -> Figure:
    """Draw the variants in the order given; with one of them there is no panel of differences.

    Raises:
        ArgumentError: there are no rows.
    """
    if not rows:
        raise ArgumentError("there is nothing to draw: give at least one variant")
    names = [style.fit_text(row.name, width_in=_NAME_IN, max_lines=1, size=style.TEXT_PT) for row in rows]
    left = _MARGIN_IN + max(style.text_width_in(name, size=style.TEXT_PT) for name in names) * 1.05 + 0.2
    num_panels = 2 if len(rows) > 1 else 1
    height = len(rows) * _ROW_IN
    width = max(left + num_panels * (_PANEL_IN + _GAP_IN), 6.0)
    figure = style.new_figure(width, _TOP_IN + height + _FOOT_IN)
    style.add_heading(figure, title, subtitle, left_in=_MARGIN_IN, width_in=width - 2 * _MARGIN_IN)
    for number, name in enumerate(names):
        style.add_text(figure, name, _MARGIN_IN, _TOP_IN + (number + 0.5) * _ROW_IN - 0.08)
    style.add_text(figure, "Top-1, 95% interval; rings are seeds", left, 0.88, bold=True)
    _draw_accuracies(_panel(figure, left, height, len(rows)), rows)
    if num_panels > 1:
        right = left + _PANEL_IN + _GAP_IN
        what = f"Points to {rows[0].name}, 95% interval"
        first = style.fit_text(what, width_in=_PANEL_IN, max_lines=1, size=style.TEXT_PT, bold=True)
        style.add_text(figure, first, right, 0.88, bold=True)
        _draw_differences(_panel(figure, right, height, len(rows)), rows)
    return figure


def _panel(figure: Figure, left: float, height: float, num_rows: int) -> Axes:
    axes = style.add_axes(figure, left, _TOP_IN, _PANEL_IN, height)
    style.plain_axes(axes)
    axes.set_ylim(num_rows - 0.5, -0.5)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    return axes


def _draw_accuracies(axes: Axes, rows: Sequence[ForestRow]) -> None:
    for number, row in enumerate(rows):
        axes.plot([row.low, row.high], [number] * 2, color=style.RIGHT, linewidth=1.8)
        axes.plot(row.value, number, "o", color=style.RIGHT, markersize=6)
        if len(row.points) > 1:
            below = [number + 0.24] * len(row.points)
            axes.plot(row.points, below, "o", color="none", markeredgecolor=style.MUTED, markersize=4)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))


def _draw_differences(axes: Axes, rows: Sequence[ForestRow]) -> None:
    axes.axvline(0, color=style.MUTED, linewidth=1.0)
    for number, row in enumerate(rows):
        if row.difference is not None:
            value, low, high = row.difference
            color = style.WRONG if row.stands_out else style.MUTED
            axes.plot([low, high], [number] * 2, color=color, linewidth=1.8)
            axes.plot(value, number, "o", color=color, markersize=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:+g}" if round(share, 9) else "0"))
