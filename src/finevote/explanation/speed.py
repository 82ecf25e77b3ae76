"""The picture of what speed costs: accuracy over the time of a forward pass, one point for each keep rate."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from finevote.explanation import style

_LEFT_IN, _TOP_IN, _WIDTH_IN, _HEIGHT_IN = 0.8, 0.95, 6.2, 3.2


class Mark(NamedTuple):
    """One keep rate: its time as a share of the plain backbone's, its accuracy with the ends of its interval."""

    keep_rate: float
    time_ratio: float
    accuracy: float
    low: float
    high: float


def speed_curve(marks: Sequence[Mark], *, chosen: float, tolerated: float, title: str, subtitle: str) -> Figure:
    """Draw the marks, joined in the order given, the chosen keep rate in another colour.

    Args:
        marks: at least one.
        chosen: the keep rate to stand out.
        tolerated: the lowest accuracy that may be chosen, drawn as a line.
        title: above all.
        subtitle: below it.
    """
    figure = style.new_figure(_LEFT_IN + _WIDTH_IN + 0.4, _TOP_IN + _HEIGHT_IN + 0.65)
    style.add_heading(figure, title, subtitle, left_in=_LEFT_IN, width_in=_WIDTH_IN)
    axes = style.add_axes(figure, _LEFT_IN, _TOP_IN, _WIDTH_IN, _HEIGHT_IN)
    style.plain_axes(axes)
    axes.axhline(tolerated, color=style.MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.plot([mark.time_ratio for mark in marks], [mark.accuracy for mark in marks], color=style.RIGHT, linewidth=1.6)
    for number, mark in enumerate(marks):
        color = style.WRONG if mark.keep_rate == chosen else style.RIGHT
        axes.plot([mark.time_ratio] * 2, [mark.low, mark.high], color=color, linewidth=1.2, alpha=0.55)
        axes.plot(mark.time_ratio, mark.accuracy, "o", color=color, markersize=7 if mark.keep_rate == chosen else 5)
        axes.annotate(
            f"{mark.keep_rate:g}",
            (mark.time_ratio, mark.accuracy),
            xytext=(6, -14 if number % 2 else 6),  # neighbours lie close together
            textcoords="offset points",
            fontproperties=style.font(style.SMALL_PT, bold=mark.keep_rate == chosen),
            color=color,
        )
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.2f}"))
    axes.margins(x=0.08)
    label = "time of a forward pass; the plain backbone is 1"
    axes.set_xlabel(label, fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    return figure
