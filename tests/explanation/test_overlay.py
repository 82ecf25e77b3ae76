import numpy as np
import pytest
from PIL import Image

from finevote.explanation.overlay import contrast_overlay, frame_view, in_view, vote_overlay
from finevote.types import Box

GREY = Image.new("RGB", (120, 60), (128, 128, 128))


def pixels(image):
    return np.asarray(image).astype(int)


def is_painted(image):
    return np.ptp(pixels(image), axis=2) > 3


def test_only_patches_with_votes_are_painted_where_they_lie():
    votes = np.zeros((2, 4))
    votes[0, 1], votes[1, 3] = 2, 1
    expected = np.kron(votes > 0, np.ones((30, 30), bool))
    assert np.array_equal(is_painted(vote_overlay(GREY, votes, side_px=120)), expected)


def test_more_votes_are_brighter():
    votes = np.arange(1.0, 9.0).reshape(1, 8)
    painted = pixels(vote_overlay(GREY, votes, side_px=120)).sum(axis=2)[30, 7::15]
    assert (np.diff(painted) > 0).all()


def test_the_colour_of_a_count_can_be_held_over_several_maps():
    few, many = np.full((1, 1), 2.0), np.full((1, 1), 4.0)
    assert vote_overlay(GREY, few, most=4).getpixel((9, 9)) != vote_overlay(GREY, many, most=4).getpixel((9, 9))
    assert vote_overlay(GREY, few).getpixel((9, 9)) == vote_overlay(GREY, many).getpixel((9, 9))


def test_what_the_model_does_not_see_is_pale_and_never_painted():
    view = Box("view", 0.25, 0.0, 0.75, 1.0)
    painted = vote_overlay(GREY, np.ones((2, 2)), view=view, side_px=120)
    assert np.array_equal(is_painted(painted), np.arange(120)[None].repeat(60, 0) // 30 % 3 > 0)
    framed = pixels(frame_view(GREY, view, side_px=120))
    assert (framed[:, 30:90] == 128).all()
    assert (framed[:, :30] > 180).all()


def test_an_outline_runs_around_patches_and_not_between_them():
    chosen = np.zeros((2, 4), bool)
    chosen[0, 1:3] = True
    drawn = pixels(vote_overlay(GREY, np.zeros((2, 4)), outlined=chosen, side_px=120))
    is_white = (drawn == 255).all(axis=2)
    inside = np.kron(chosen, np.ones((30, 30), bool))
    assert is_white.any()
    assert not is_white[~inside].any()
    assert not is_white[5:25, 55:65].any()  # where the two patches meet
    assert is_white[0:29, 30].all()


def test_what_is_for_a_is_blue_and_what_is_for_b_orange():
    drawn = pixels(contrast_overlay(GREY, np.array([[2.0, -2.0, 0.0, 1.0]]), side_px=120))[30, 15::30]
    for_a, for_b, neutral, half = drawn
    assert for_a[2] > for_a[0]
    assert for_b[0] > for_b[2]
    assert np.ptp(neutral) == 0
    assert np.ptp(half) < np.ptp(for_a)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (7, 5)])
def test_pictures_of_any_size_can_be_laid_over(size):
    photograph = Image.new("RGB", size)
    for drawn in (vote_overlay(photograph, np.ones((3, 5))), contrast_overlay(photograph, np.zeros((3, 5)))):
        assert max(drawn.size) == 720
    assert min(in_view(photograph, Box("view", 0.4, 0.4, 0.6, 0.6)).size) >= 1


def test_the_view_is_cut_out_of_the_photograph():
    assert in_view(GREY, Box("view", 0.1, 0.25, 0.9, 0.75)).size == (96, 30)
