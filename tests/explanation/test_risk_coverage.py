import pytest

from finevote.explanation.risk_coverage import risk_coverage_plot


def drawn(curves):
    (axes,) = risk_coverage_plot(curves, title="Test", subtitle="of 4 images").axes
    return axes


def test_every_curve_is_drawn_and_the_best_order_dashed():
    axes = drawn({"species": [(0.5, 0.0), (1.0, 0.25)], "genus": [(0.5, 0.0), (1.0, 0.1)]})
    assert [line.get_label() for line in axes.lines] == ["species", "genus", "species, best order"]
    assert axes.lines[0].get_ydata() == pytest.approx([0.0, 0.25])
    best = dict(zip(*axes.lines[2].get_data(), strict=True))
    assert best[1.0] == pytest.approx(0.25)
    assert all(risk == 0 for coverage, risk in best.items() if coverage < 0.75)


def test_a_model_without_mistakes_can_be_drawn():
    axes = drawn({"species": [(0.5, 0.0), (1.0, 0.0)]})
    assert axes.get_ylim() == (0, 0.01)
