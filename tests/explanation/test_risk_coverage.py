import pytest

from finevote.explanation.risk_coverage import risk_coverage_plot
from tests.explanation.extents import is_within, overlapping


def drawn(curves):
    (axes,) = risk_coverage_plot(curves, title="Test", subtitle="of 4 images").axes
    return axes


def test_every_curve_is_drawn_and_the_best_order_dashed():
    axes = drawn({"species": [(0.5, 0.0), (1.0, 0.25)], "genus": [(0.5, 0.0), (1.0, 0.1)]})
    assert [line.get_label() for line in axes.lines] == ["species", "genus", "best order"]
    assert axes.lines[0].get_ydata() == pytest.approx([0.0, 0.25])
    best = dict(zip(*axes.lines[2].get_data(), strict=True))
    assert best[1.0] == pytest.approx(0.25)
    assert all(risk == 0 for coverage, risk in best.items() if coverage < 0.75)


def test_a_model_without_mistakes_can_be_drawn():
    axes = drawn({"species": [(0.5, 0.0), (1.0, 0.0)]})
    assert axes.get_ylim() == (0, 0.01)


def test_names_of_curves_stand_apart_from_the_curves_and_the_heading():
    levels = ("subspecies of many words", "species", "genus", "family", "order", "a class of classes of classes")
    figure = risk_coverage_plot({level: [(0.5, 0.9), (1.0, 0.9)] for level in levels}, title="Test", subtitle="a " * 80)
    figure.draw_without_rendering()
    legend = figure.axes[0].get_legend()
    assert not legend.get_window_extent().overlaps(figure.axes[0].patch.get_window_extent())
    assert is_within(legend, figure)
    assert overlapping([*figure.texts, *legend.get_texts()]) == []
