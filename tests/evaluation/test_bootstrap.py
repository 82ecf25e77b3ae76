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


def test_each_sample_keeps_its_number_of_draws():
    counts = []
    strata = [np.arange(30), np.arange(30, 40)]
    bootstrap_intervals(lambda rows: counts.append((rows < 30).sum()) or [0.0], 40, strata=strata, num_resamples=20)
    assert counts == [30] * 20


def test_two_samples_give_the_interval_of_scipy():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 60), rng.normal(1, 2, 90)
    values, strata = np.concatenate([first, second]), [np.arange(60), np.arange(60, 150)]

    def difference(rows):
        return [values[rows[rows >= 60]].mean() - values[rows[rows < 60]].mean()]

    (got,) = bootstrap_intervals(difference, 150, strata=strata, num_resamples=4000)
    options = {"n_resamples": 4000, "method": "percentile", "vectorized": False, "rng": 1}
    expected = bootstrap((second, first), lambda a, b: a.mean() - b.mean(), **options).confidence_interval
    assert got == pytest.approx((expected.low, expected.high), abs=0.05)


def test_groups_are_drawn_whole_within_their_sample():
    groups = np.repeat(np.arange(10), 4)
    sizes = []

    def note(rows):
        sizes.append(np.bincount(rows, minlength=40).reshape(10, 4))
        return [0.0]

    bootstrap_intervals(note, 40, groups=groups, strata=[np.arange(20), np.arange(20, 40)], num_resamples=20)
    assert all((counts == counts[:, :1]).all() and counts[:5, 0].sum() == 5 for counts in sizes)
