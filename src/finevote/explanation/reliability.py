"""The reliability diagram: how often a model is right, over how sure it is."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from finevote.explanation import style

_LEFT_IN, _TOP_IN, _SIDE_IN = 0.8, 1.2, 4.4
_COLORS = (style.WRONG, style.RIGHT)


def reliability_diagram(
    curves: Mapping[str, Sequence[tuple[int, float, float]]], *, title: str, subtitle: str
) -> Figure:
    """Draw accuracy over confidence; the area of a dot is in proportion to the images in its bin.

    Args:
        curves: up to two, by what they are called; each a number of images, confidence and accuracy for each bin.
        title: above all.
        subtitle: below it.
    """
    figure = style.new_figure(_LEFT_IN + _SIDE_IN + 0.5, _TOP_IN + _SIDE_IN + 0.65)
    style.add_heading(figure, title, subtitle, left_in=_LEFT_IN, width_in=_SIDE_IN + 0.4, max_lines=2)
    axes = style.add_axes(figure, _LEFT_IN, _TOP_IN, _SIDE_IN, _SIDE_IN)
    style.plain_axes(axes)
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    for (name, bins), color in zip(curves.items(), _COLORS, strict=False):
        counts, confidences, accuracies = zip(*bins, strict=True)
        axes.plot(confidences, accuracies, color=color, linewidth=1.6, label=name)
        areas = [12 + 260 * count / sum(counts) for count in counts]
        axes.scatter(confidences, accuracies, s=areas, color=color, alpha=0.55, linewidths=0, clip_on=False)
    axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("how sure", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    axes.set_ylabel("how often right", fontproperties=style.font(style.SMALL_PT), color=style.MUTED)
    style.legend_above(axes, width_in=_SIDE_IN, num_columns=2)
    return figure
