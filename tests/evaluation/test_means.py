import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.means import mean_interval


def coverage(draw, truth, *, num_trials=1000, groups=None):
    intervals = [mean_interval(draw(), groups=groups) for _ in range(num_trials)]
    return np.mean([low <= truth <= high for low, high in intervals])


def test_values_without_skewness_have_student_s_interval():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))


def test_a_long_tail_moves_the_interval_to_its_side():
    values = np.random.default_rng(0).exponential(size=60)
    low, high = mean_interval(values)
    assert high - values.mean() > 1.2 * (values.mean() - low)


@pytest.mark.parametrize("num_images", [50, 500, 5000])
def test_it_covers_the_mean_of_skewed_values_about_95_times_in_100(num_images):
    rng = np.random.default_rng(num_images)
    assert 0.93 <= coverage(lambda: rng.exponential(size=num_images), 1.0) <= 0.97


def test_whole_groups_cover_where_images_by_themselves_would_not():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 5)

    def draw():
        return np.repeat(rng.exponential(size=60), 5)

    assert 0.93 <= coverage(draw, 1.0, groups=groups) <= 0.97
    assert coverage(draw, 1.0) < 0.8


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=40))
def test_the_interval_holds_the_mean(values):
    low, high = mean_interval(values)
    assert low - 1e-9 <= np.mean(values) <= high + 1e-9


def test_groups_of_one_image_are_no_groups():
    values = np.random.default_rng(0).exponential(size=30)
    assert mean_interval(values, groups=list(range(30))) == pytest.approx(mean_interval(values))


def test_equal_values_reach_as_far_as_unseen_ones_may():
    assert mean_interval(np.ones(40)) == (1.0, 1.0)
    assert mean_interval(np.ones(40), reach=1) == pytest.approx((1.0, 1 + wilson_interval(0, 40).high))
    assert mean_interval(np.ones(40), groups=["a"] * 40, reach=1).high == pytest.approx(1 + wilson_interval(0, 1).high)


def test_a_group_for_each_value_is_needed():
    with pytest.raises(ArgumentError, match="3 values with 2 groups"):
        mean_interval([1.0, 2.0, 3.0], groups=["a", "b"])
    with pytest.raises(ArgumentError, match="0 values with no groups"):
        mean_interval([])
