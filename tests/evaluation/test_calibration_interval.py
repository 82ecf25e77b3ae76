import numpy as np
import pytest

from finevote.errors import ArgumentError
from finevote.evaluation.calibration import calibration_error
from finevote.evaluation.calibration_interval import calibration_error_interval

each_kind = pytest.mark.parametrize("bins", ["width", "mass"])


def simulated(num_images, *, excess, seed):
    """Return confidences that lie above the truth by `excess`, and whether images are right."""
    rng = np.random.default_rng(seed)
    confidences = rng.uniform(0.4, 0.95, num_images)
    return confidences, rng.random(num_images) < confidences - excess


@each_kind
@pytest.mark.parametrize("num_images", [50, 500])
@pytest.mark.parametrize("excess", [0.0, 0.1])
def test_it_covers_the_true_error_about_95_times_in_100(bins, num_images, excess):
    covered = []
    for seed in range(100):
        sample = simulated(num_images, excess=excess, seed=seed)
        low, high = calibration_error_interval(*sample, bins=bins, num_resamples=200, seed=seed).interval
        covered.append(low <= excess <= high)
    assert np.mean(covered) >= 0.95 - 3 * (0.95 * 0.05 / 100) ** 0.5  # benchmarks/results/intervals has more of them


@each_kind
def test_perfect_probabilities_are_not_told_to_err(bins):
    sample = simulated(200, excess=0, seed=0)
    (low, high), expected = calibration_error_interval(*sample, bins=bins)
    assert low == 0 < high
    assert expected == pytest.approx(
        np.mean([calibration_error(*simulated(200, excess=0, seed=seed), bins=bins) for seed in range(300)]), rel=0.1
    )


def test_luck_does_not_make_the_interval_a_point():
    confidences = np.full(40, 0.75)
    lucky = calibration_error_interval(confidences, np.arange(40) < 30).interval  # an error of exactly 0 is found
    usual = calibration_error_interval(confidences, np.arange(40) < 26).interval
    assert lucky.low == 0
    assert 0.08 < lucky.high < usual.high
    few = calibration_error_interval(np.full(20, 1 / 12), np.arange(20) < 2, groups=np.arange(20) % 7).interval
    assert few.high > 0.1


def test_of_many_images_the_interval_closes_in_on_what_is_found():
    sample = simulated(20_000, excess=0.1, seed=0)
    low, high = calibration_error_interval(*sample).interval
    assert low < calibration_error(*sample) < high
    assert high - low < 0.02


def test_images_of_a_group_count_together():
    confidences, is_right = simulated(60, excess=0.1, seed=0)
    repeated = np.repeat(confidences, 20), np.repeat(is_right, 20)
    groups = np.repeat(np.arange(60), 20)
    alone, together, single = (
        calibration_error_interval(*repeated).interval,
        calibration_error_interval(*repeated, groups=groups).interval,
        calibration_error_interval(confidences, is_right).interval,
    )
    assert together.high - together.low > 2.5 * (alone.high - alone.low)
    assert together == pytest.approx(single, abs=0.05)


def test_a_model_that_is_always_right_may_still_err():
    low, high = calibration_error_interval(np.full(50, 0.99), np.ones(50, bool)).interval
    assert low <= 0.01
    assert 0.04 < high < 0.15  # of 50 images without a mistake, 7% may be wrong


def test_the_same_seed_gives_the_same_interval():
    sample = simulated(100, excess=0.1, seed=0)
    assert calibration_error_interval(*sample, seed=3) == calibration_error_interval(*sample, seed=3)


def test_a_group_for_each_image_is_needed():
    with pytest.raises(ArgumentError, match="3 images with 2 groups"):
        calibration_error_interval(np.ones(3), np.ones(3, bool), groups=["a", "b"])
