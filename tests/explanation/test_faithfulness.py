import numpy as np
import pytest

from finevote.explanation.faithfulness import Band, Panel, faithfulness_plot
from tests.explanation.extents import is_within, overlapping

SHARES = np.linspace(0, 1, 17)


def panel(orders, heading="Patches taken away", lines=("votes - random: better", "votes - rollout: worse")):
    scores = np.linspace(1, 0, 17)
    bands = {name: Band(scores, scores - 0.05, scores + 0.05, 0.5) for name in orders}
    return Panel(heading, lines, bands)


def drawn(*panels, title="Test: voted patches matter", subtitle="of 200 images"):
    figure = faithfulness_plot(panels, SHARES, title=title, subtitle=subtitle)
    figure.draw_without_rendering()
    return figure


def test_every_order_has_a_curve_and_a_band_in_each_panel():
    figure = drawn(panel(("votes", "random", "rollout")), panel(("random", "rollout")))
    assert [[line.get_label() for line in axes.lines] for axes in figure.axes] == [
        ["votes 0.500", "random 0.500", "rollout 0.500"],
        ["random 0.500", "rollout 0.500"],
    ]
    assert [len(axes.collections) for axes in figure.axes] == [3, 2]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), np.linspace(1, 0, 17))


def test_an_order_looks_the_same_whatever_stands_beside_it():
    figure = drawn(panel(("votes", "random", "rollout")), panel(("random", "rollout")))
    first, second = ({line.get_label(): line for line in axes.lines} for axes in figure.axes)
    for label in ("random 0.500", "rollout 0.500"):
        assert first[label].get_color() == second[label].get_color()
        assert first[label].get_linestyle() == second[label].get_linestyle()


def test_low_probabilities_fill_the_plot_and_no_panel_has_a_scale_of_its_own():
    low = panel(("random", "rollout"))
    bands = {name: Band(*(np.asarray(values) / 4 for values in band[:3]), 0.1) for name, band in low.curves.items()}
    figure = drawn(low._replace(curves=bands), low._replace(curves=bands))
    assert [axes.get_ylim()[1] for axes in figure.axes] == [pytest.approx(1.15 * 1.05 / 4)] * 2
    assert drawn(low).axes[0].get_ylim() == (0, 1.005)


def test_texts_lie_within_the_figure_and_apart():
    long = panel(("votes", "random", "rollout"), heading="Patches " * 20, lines=["votes - random " * 9] * 2)
    figure = drawn(long, long, title="Test: " + "voted patches " * 12, subtitle="of 200 images " * 30)
    legends = [text for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert overlapping([*figure.texts, *legends]) == []
    assert all(is_within(text, figure) for text in [*figure.texts, *legends])
