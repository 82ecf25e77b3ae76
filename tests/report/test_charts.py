import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.report.charts import Axis, Curve, as_number, as_percent, as_whole, draw, legend_of, ticks

X, Y = Axis("epoch", 0.0, 10.0, as_whole), Axis("top-1", 0.0, 1.0, as_percent)


def parse(svg):
    return ET.fromstring(str(svg))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_evenly_spaced_and_within_the_axis(low, width):
    high = low + width
    found = ticks(low, high)
    step = np.diff(found)
    assert 1 <= len(found) <= 7
    assert found[0] >= low - 1e-6 * width
    assert found[-1] <= high + 1e-6 * width
    if len(found) > 1:
        np.testing.assert_allclose(step, step[0], rtol=1e-6, atol=1e-9 * max(abs(low), abs(high)))
        digits = step[0] / 10.0 ** np.floor(np.log10(step[0] * (1 + 1e-9)))
        assert min(abs(digits - wanted) for wanted in (1, 2, 2.5, 5)) < 1e-3


def test_an_axis_without_length_has_its_one_number():
    assert ticks(3.0, 3.0) == [3.0]


def test_points_lie_where_their_numbers_say():
    svg = parse(draw([Curve("a", [(0.0, 0.0), (5.0, 0.5), (10.0, 1.0)], "s1")], X, Y, label="what"))
    (line,) = svg.iter("polyline")
    (left, foot), (middle, half), (right, top) = ([float(v) for v in p.split(",")] for p in line.get("points").split())
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert half == pytest.approx((foot + top) / 2, abs=0.1)
    assert left < right
    assert top < foot


def test_the_drawing_is_described_and_names_are_escaped():
    svg = draw([], X, Y._replace(label="a < b"), label='says "so" & more')
    assert parse(svg).get("aria-label") == 'says "so" & more'
    assert "a < b" in [text.text for text in parse(svg).iter("text")]


def test_a_ring_and_dots_are_drawn_where_they_are_asked_for():
    svg = parse(draw([Curve("a", [(1.0, 0.2), (2.0, 0.4)], "s2", [3, 4])], X, Y, label="", ring=(2.0, 0.4)))
    dots = {kind: [c for c in svg.iter("circle") if kind in c.get("class")] for kind in ("dot", "ring")}
    assert [dot.get("r") for dot in dots["dot"]] == ["3.0", "4.0"]
    assert dots["ring"][0].get("cx") == dots["dot"][1].get("cx")


def test_colours_are_the_pages_own():
    assert not re.search(r"#[0-9a-fA-F]{3}|rgb|style=", str(draw([Curve("a", [(0, 0)], "s1")], X, Y, label="")))


def test_one_curve_alone_needs_no_legend():
    curve = Curve("a", [(0, 0)], "s1")
    assert legend_of([curve]) == []
    assert legend_of([curve, curve]) == [("a", "s1"), ("a", "s1")]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (as_percent, 0.2, "20%"),
        (as_percent, 0.125, "12.5%"),
        (as_whole, 1200.0, "1,200"),
        (as_whole, 2.5, ""),
        (as_number, 0.0005, "0.0005"),
    ],
)
def test_numbers_of_an_axis_are_short(write, value, text):
    assert write(value) == text
