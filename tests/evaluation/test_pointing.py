import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.evaluation.pointing import (
    boxes_in_view,
    cover_fractions,
    play_pointing_game,
    share_in_boxes,
    summarize,
)
from finevote.evaluation.shares import share
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


class TestPointingGame:
    def test_a_hit_is_a_most_voted_patch_whose_centre_lies_in_a_box(self):
        """On 2 x 2 patches; the centres lie at 0.25 and 0.75."""
        near = [Box("eye", 0.0, 0.0, 0.24, 1.0)]  # covers nearly half of two patches, and no centre
        upon = [Box("eye", 0.6, 0.0, 0.8, 0.3), Box("beak", 0.2, 0.7, 0.3, 0.8)]
        found = play_pointing_game(np.array([0, 1, 2, 3, 0]), (2, 2), [near, upon, upon, upon, []])
        assert (found.hit_share, found.num_images) == (0.5, 4)
        assert found.area_share == pytest.approx((0.24 + 3 * (0.06 + 0.01)) / 4)
        assert found.lift == pytest.approx(found.hit_share / found.area_share)

    def test_rows_and_columns_of_a_rectangle_are_not_mistaken(self):
        right_of_first_row = [Box("eye", 0.8, 0.0, 1.0, 0.5)]
        hits = [play_pointing_game(np.array([patch]), (2, 5), [right_of_first_row]).hit_share for patch in range(10)]
        assert hits == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]

    def test_the_intervals_are_those_of_an_accuracy_and_take_subjects_whole(self):
        generator = np.random.default_rng(0)
        patches, boxes = generator.integers(0, 4, 60), [[Box("eye", 0.0, 0.0, 0.5, 1.0)]] * 60
        groups = np.repeat([f"bird {number}" for number in range(15)], 4)
        is_hit = patches % 2 == 0
        for grouping in (None, groups):
            found = play_pointing_game(patches, (2, 2), boxes, groups=grouping)
            expected = share(is_hit, groups=grouping)
            assert (found.hit_share, found.low, found.high) == expected[:3]
            assert (found.lift_low, found.lift_high) == (expected.low / 0.5, expected.high / 0.5)

    def test_patches_at_random_hit_as_often_as_the_area_says(self):
        generator = np.random.default_rng(1)
        corners = generator.uniform(0, 0.6, (4000, 2))
        boxes = [[Box("eye", x, y, x + 0.3, y + 0.4)] for x, y in corners.tolist()]
        found = play_pointing_game(generator.integers(0, 100, 4000), (10, 10), boxes)
        assert found.low < found.area_share < found.high

    def test_there_is_no_game_without_a_box(self):
        assert play_pointing_game(np.array([1, 2]), (2, 2), [[], []]) is None

    def test_patches_and_boxes_must_be_of_the_same_images(self):
        with pytest.raises(ArgumentError, match=r"patches of shape \(3,\) do not fit 1 images"):
            play_pointing_game(np.array([1, 2, 3]), (2, 2), [[]])
