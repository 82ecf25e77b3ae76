"""Deletion and insertion curves: what a model still says while patches go or come, order by order."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from finevote.explanation import style

_LEFT_IN, _TOP_IN, _WIDTH_IN, _HEIGHT_IN, _GAP_IN = 0.8, 1.9, 3.9, 3.0, 0.75
_HEADING_IN, _LINE_IN = 0.9, 0.2
_COLORS = {"votes": style.SERIES[0], "rollout": style.SERIES[1], "random": style.MUTED}
_DASHES: Mapping[str, str | tuple[int, tuple[float, float]]] = {
    "votes": "-",
    "rollout": (0, (5.0, 2.0)),
    "random": (0, (1.0, 1.4)),
}


class Band(NamedTuple):
    """A mean curve with the ends of its intervals, and the area under it."""

    scores: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    area: float


class Panel(NamedTuple):
    """Curves by the name of their order, what is done to patches, and a few lines on what that shows."""

    heading: str
    lines: Sequence[str]
    curves: Mapping[str, Band]


def faithfulness_plot(panels: Sequence[Panel], shares: Sequence[float], *, title: str, subtitle: str) -> Figure:
    """Draw the probability over the share of patches changed, one panel beside the other, with bands.

    Args:
        panels: at least one, with up to two lines each.
        shares: of the patches that are changed after each step.
        title: above all.
        subtitle: below it.
    """
    width_in = len(panels) * _WIDTH_IN + (len(panels) - 1) * _GAP_IN
    figure = style.new_figure(_LEFT_IN + width_in + 0.3, _TOP_IN + _HEIGHT_IN + 0.65)
    style.add_heading(figure, title, subtitle, left_in=_LEFT_IN, width_in=width_in)
    highest = max(max(band.high) for panel in panels for band in panel.curves.values())
    for number, panel in enumerate(panels):
        left_in = _LEFT_IN + number * (_WIDTH_IN + _GAP_IN)
        _draw(figure, panel, shares, left_in=left_in, highest=highest)
    label = "probability of the class it names"
    figure.axes[0].set_ylabel(label, fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    return figure


def _draw(figure: Figure, panel: Panel, shares: Sequence[float], *, left_in: float, highest: float) -> None:
    heading = style.fit_text(panel.heading, width_in=_WIDTH_IN, max_lines=1, size=style.TEXT_PT, bold=True)
    style.add_text(figure, heading, left_in, _HEADING_IN, bold=True)
    for number, line in enumerate(panel.lines, start=1):
        text = style.fit_text(line, width_in=_WIDTH_IN, max_lines=1, size=style.SMALL_PT)
        style.add_text(figure, text, left_in, _HEADING_IN + number * _LINE_IN, size=style.SMALL_PT)
    axes = style.add_axes(figure, left_in, _TOP_IN, _WIDTH_IN, _HEIGHT_IN)
    style.plain_axes(axes)
    for name, band in panel.curves.items():
        axes.fill_between(shares, band.low, band.high, color=_COLORS[name], alpha=0.16, linewidth=0)
        axes.plot(
            shares,
            band.scores,
            color=_COLORS[name],
            linestyle=_DASHES[name],
            linewidth=1.9,
            label=f"{name} {band.area:.3f}",
        )
    axes.set(xlim=(0, 1), ylim=(0, min(1.005, 1.15 * highest)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("patches changed", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    style.legend_above(axes, width_in=_WIDTH_IN, num_columns=3)
