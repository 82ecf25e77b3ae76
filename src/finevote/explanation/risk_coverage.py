"""The risk-coverage curve: how often a model is wrong, over how many images it answers, the surest first."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from finevote.explanation import style

_LEFT_IN, _TOP_IN, _WIDTH_IN, _HEIGHT_IN = 0.8, 1.3, 5.6, 3.6


def risk_coverage_plot(curves: Mapping[str, Sequence[tuple[float, float]]], *, title: str, subtitle: str) -> Figure:
    """Draw the share of wrong answers over the share of images answered.

    Args:
        curves: by what they are called; each of shares answered and wrong, ending where all images are answered. The
            best order of the first one's answers is dashed.
        title: above all.
        subtitle: below it.
    """
    figure = style.new_figure(_LEFT_IN + _WIDTH_IN + 0.4, _TOP_IN + _HEIGHT_IN + 0.65)
    style.add_heading(figure, title, subtitle, left_in=_LEFT_IN, width_in=_WIDTH_IN + 0.3, max_lines=2)
    axes = style.add_axes(figure, _LEFT_IN, _TOP_IN, _WIDTH_IN, _HEIGHT_IN)
    style.plain_axes(axes)
    for (name, points), color in zip(curves.items(), style.SERIES, strict=False):
        coverages, risks = zip(*points, strict=True)
        axes.plot(coverages, risks, color=color, linewidth=1.8, label=name, clip_on=False)
    worst = next(iter(curves.values()))[-1][1]
    shares = np.linspace(0.005, 1, 200)
    best = np.maximum(shares - (1 - worst), 0) / shares
    axes.plot(
        shares,
        best,
        color=style.MUTED,
        linewidth=1.0,
        linestyle=(0, (4, 3)),
        label="best order",
    )
    highest = max(risk for points in curves.values() for _, risk in points)
    axes.set(xlim=(0, 1.005), ylim=(0, max(highest * 1.08, 0.01)))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if highest > 0.05 else 1))
    axes.set_xlabel("answered, the surest first", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    axes.set_ylabel("wrong among them", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    style.legend_above(axes, width_in=_WIDTH_IN, num_columns=4)
    return figure
