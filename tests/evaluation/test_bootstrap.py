import numpy as np
import pytest
from scipy.stats import bootstrap

from finevote.errors import ArgumentError
from finevote.evaluation.bootstrap import bootstrap_intervals


def test_it_agrees_with_scipy():
    values = np.random.default_rng(0).gamma(2, size=200)
    (got,) = bootstrap_intervals(lambda rows: [values[rows].mean()], 200, num_resamples=4000)
    expected = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert got == pytest.approx((expected.low, expected.high), rel=0.01)


@pytest.mark.parametrize("num_images", [50, 500])
def test_it_covers_the_truth_about_95_times_in_100(num_images):
    rng = np.random.default_rng(num_images)
    held = []
    for seed in range(400):
        values = rng.normal(size=num_images)
        (got,) = bootstrap_intervals(lambda rows, v=values: [v[rows].mean()], num_images, num_resamples=300, seed=seed)
        held.append(got.low <= 0 <= got.high)
    assert 0.91 <= np.mean(held) <= 0.98


def test_images_of_a_group_are_drawn_together():
    values = np.repeat(np.random.default_rng(0).normal(size=40), 10)  # ten copies of each
    groups = np.repeat(np.arange(40), 10).tolist()
    (alone,) = bootstrap_intervals(lambda rows: [values[rows].mean()], 400)
    (together,) = bootstrap_intervals(lambda rows: [values[rows].mean()], 400, groups=groups)
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(10**0.5, rel=0.15)


def test_a_figure_that_a_resample_lacks_is_left_out_of_it():
    values = np.array([1.0, np.nan, np.nan])
    (got,) = bootstrap_intervals(lambda rows: [values[rows].max()], 3, num_resamples=200)
    assert got == (1.0, 1.0)


def test_a_group_for_each_image_is_needed():
    with pytest.raises(ArgumentError, match="3 images with 2 groups"):
        bootstrap_intervals(lambda rows: [rows.mean()], 3, groups=["a", "b"])
