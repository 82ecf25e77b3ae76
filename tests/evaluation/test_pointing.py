import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.evaluation.pointing import boxes_in_view, cover_fractions, share_in_boxes, summarize
from finevote.types import Box, Preprocessing

hundredths = st.tuples(st.integers(0, 60), st.integers(0, 60)).filter(lambda pair: pair[0] != pair[1]).map(sorted)


@st.composite
def boxes(draw):
    (left, right), (top, bottom) = draw(hundredths), draw(hundredths)
    return Box("part", left / 60, top / 60, right / 60, bottom / 60)


@given(st.lists(boxes(), max_size=4), st.sampled_from([(3, 5), (4, 4), (1, 2)]))
def test_cover_agrees_with_counting_the_points_of_a_fine_raster(parts, grid):
    y, x = np.meshgrid((np.arange(60) + 0.5) / 60, (np.arange(60) + 0.5) / 60, indexing="ij")
    raster = np.zeros((60, 60))
    for box in parts:
        raster[(box.top < y) & (y < box.bottom) & (box.left < x) & (x < box.right)] = 1
    rows, columns = grid
    expected = raster.reshape(rows, 60 // rows, columns, 60 // columns).mean(axis=(1, 3))
    np.testing.assert_allclose(cover_fractions(grid, parts), expected, atol=1e-9)


def test_votes_count_by_the_fraction_of_their_patch_that_is_covered():
    votes = np.array([[3, 1, 0, 0]], np.float32)  # on a 2 x 2 grid
    shares = share_in_boxes(votes, (2, 2), [[Box("eye", 0.0, 0.0, 0.25, 0.5)]])
    assert shares.votes[0] == pytest.approx(3 / 4 * 0.5)
    assert shares.area[0] == pytest.approx(0.125)


def test_even_votes_have_the_share_of_the_area():
    parts = [[Box("eye", 0.1, 0.2, 0.33, 0.7), Box("beak", 0.3, 0.1, 0.6, 0.4)]]
    shares = share_in_boxes(np.ones((1, 35), np.float32), (5, 7), parts)
    assert shares.votes[0] == pytest.approx(shares.area[0])


def test_the_summary_leaves_out_images_without_votes_or_boxes():
    votes = np.array([[4, 0], [0, 0], [1, 1]], np.float32)
    left_half = [Box("wing", 0.0, 0.0, 0.5, 1.0)]
    figure = summarize(share_in_boxes(votes, (1, 2), [left_half, left_half, []]))
    assert figure == (1.0, 0.5, 2.0, 1)


def test_there_is_no_summary_without_a_usable_image():
    assert summarize(share_in_boxes(np.zeros((1, 2), np.float32), (1, 2), [[]])) is None


def test_votes_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(ArgumentError, match="do not fit 1 images on a grid of 2x2"):
        share_in_boxes(np.zeros((1, 5), np.float32), (2, 2), [[]])


def test_boxes_move_with_the_centre_crop_and_are_cut_at_its_sides():
    crop = Preprocessing(image_size=(50, 100), resize=(100, 200), mean=(0, 0, 0), std=(1, 1, 1))
    whole, corner = Box("wing", 0.25, 0.25, 0.75, 0.75), Box("tail", 0.0, 0.0, 0.5, 0.5)
    outside = Box("foot", 0.8, 0.8, 1.0, 1.0)
    assert boxes_in_view([whole, corner, outside], crop) == [
        Box("wing", 0.0, 0.0, 1.0, 1.0),
        Box("tail", 0.0, 0.0, 0.5, 0.5),
    ]
