import pytest

from finevote.evaluation.figure import Figure
from finevote.report.text import place, points_cell, scale_of, sentence, share_cell, times

FIGURE = {"value": 0.9083, "low": 0.8791, "high": 0.9309}


def test_a_share_is_written_with_its_interval():
    cell = share_cell(FIGURE)
    assert (cell.text, cell.note, cell.sort) == ("90.8%", "87.9 to 93.1%", 0.9083)
    assert share_cell(None).text == ""


def test_a_difference_is_written_with_its_sign():
    cell = points_cell({"value": -0.052, "low": -0.087, "high": 0.016})
    assert (cell.text, cell.note) == ("-5.2", "-8.7 to +1.6")


@pytest.mark.parametrize(
    ("figures", "wanted"),
    [
        ([Figure(0.36, 0.28, 0.42), Figure(0.3, 0.3, 0.31)], (0.2, 0.5)),
        ([Figure(0.3, 0.3, 0.4)], (0.3, 0.4)),
        ([Figure(1.0, 1.0, 1.0)], (1.0, 1.1)),
        ([Figure(0.0, 0.0, 0.05)], (0.0, 0.1)),
    ],
)
def test_a_scale_lies_between_tenths_and_holds_all(figures, wanted):
    assert scale_of(figures) == pytest.approx(wanted)


def test_a_bar_ends_with_its_scale():
    assert place(Figure(0.5, 0.1, 0.8), (0.3, 0.7)) == pytest.approx((0.0, 0.5, 1.0))


@pytest.mark.parametrize(("number", "text"), [(1, "once"), (2, "twice"), (1200, "1,200 times")])
def test_how_often(number, text):
    assert times(number) == text


def test_a_remark_becomes_a_sentence():
    assert sentence("drawn from seed 0") == "Drawn from seed 0."
    assert sentence("Is it?") == "Is it?"
