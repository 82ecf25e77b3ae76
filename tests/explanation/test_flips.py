import pytest
from PIL import Image

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.flips import Flip, flip_sheet
from tests.explanation.extents import overlapping


def flips(number):
    return [Flip(Image.new("RGB", (40, 30)), "red_bird", ("red_bird", 0.9), ("blue_bird", 0.6)) for _ in range(number)]


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_every_flip_tells_the_truth_and_both_answers():
    figure = flip_sheet(flips(1), flips(2), first="one", second="two", num_gained=1, num_lost=30)
    assert "Only B is right: 1" in texts(figure)
    assert "Only A is right: 2 of 30, drawn at random" in texts(figure)
    assert texts(figure).count("red bird") == 3
    assert (
        texts(figure).count(f"A {style.TICK} 90% red bird")
        == texts(figure).count(f"B {style.CROSS} 60% blue bird")
        == 3
    )
    assert len(figure.axes) == 3


def test_a_page_of_more_rows_is_higher():
    few, many = (flip_sheet(flips(n), [], first="a", second="b", num_gained=n, num_lost=0) for n in (6, 7))
    assert many.get_size_inches()[1] > few.get_size_inches()[1]


def test_nothing_to_draw_is_refused():
    with pytest.raises(ArgumentError, match="no image is named right by one of the two alone"):
        flip_sheet([], [], first="a", second="b", num_gained=0, num_lost=0)


def test_long_names_do_not_run_into_their_neighbours():
    name = "Laysan Albatross of the whole Northern Hemisphere"
    long = [Flip(Image.new("RGB", (40, 40)), name, (name, 1.0), (name[::-1], 1.0))] * 6
    figure = flip_sheet(long, [], first="a", second="b", num_gained=6, num_lost=0)
    assert overlapping(figure.texts) == []
