import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from finevote.errors import ArgumentError
from finevote.evaluation.selective import excess_area, fewest_images, promise_error, risk_area, risk_curve

IMAGES = st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=30)


def draw(num_images, *, seed, risk=lambda confidence: 0.5 * (1 - confidence)):
    """Return confidences, uniform in [0, 1], and whether images are right, wrong at a rate that falls with them."""
    rng = np.random.default_rng(seed)
    confidences = rng.random(num_images)
    return confidences, rng.random(num_images) >= risk(confidences)


def test_the_curve_is_that_of_a_loop():
    confidences, is_right = draw(50, seed=0)
    order = sorted(range(50), key=lambda row: -confidences[row])
    expected = [sum(not is_right[row] for row in order[:k]) / k for k in range(1, 51)]
    assert risk_curve(confidences, is_right) == pytest.approx(expected)
    assert risk_area(confidences, is_right) == pytest.approx(np.mean(expected))


@given(IMAGES, st.randoms())
def test_equally_sure_images_have_no_order(images, random):
    shuffled = random.sample(images, len(images))
    first, second = (
        risk_curve(np.array([c for c, _ in rows]), np.array([right for _, right in rows]))
        for rows in (images, shuffled)
    )
    assert first == pytest.approx(second)
    assert first[-1] == pytest.approx(np.mean([not right for _, right in images]))


@given(IMAGES)
def test_no_order_beats_the_one_that_knows_what_is_right(images):
    confidences, is_right = (np.array(column) for column in zip(*images, strict=True))
    assert excess_area(confidences, is_right) >= -1e-12
    assert excess_area(is_right + 0.1, is_right) == pytest.approx(0)


def test_equal_confidences_gain_nothing():
    is_right = np.array([True, False, True, True])
    assert risk_curve(np.full(4, 0.9), is_right) == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_promise_is_kept_as_often_as_stated(confidence):
    """Above a threshold t the risk is (1 - t) / 4: more than 10% for t below 0.6."""
    broken = made = 0
    for seed in range(2000):
        promise = promise_error(*draw(400, seed=seed), max_error=0.1, confidence=confidence)
        made += promise is not None
        broken += promise is not None and max(promise.threshold, 0) < 0.6
    assert made > 50
    assert binomtest(broken, 2000, 1 - confidence, alternative="greater").pvalue > 0.01


def test_the_promise_is_kept_where_sureness_misleads_too():
    """The surest tenth is wrong most, so risk does not fall with the threshold."""

    def risk(confidences):
        return np.where(confidences > 0.9, 0.3, 0.04)

    def true_risk(threshold):
        grid = np.linspace(max(threshold, 0), 1, 20001)
        return risk(grid).mean()

    promises = [promise_error(*draw(600, seed=seed, risk=risk), max_error=0.1) for seed in range(500)]
    broken = sum(promise is not None and true_risk(promise.threshold) > 0.1 for promise in promises)
    assert sum(promise is not None for promise in promises) > 50
    assert binomtest(broken, 500, 0.05, alternative="greater").pvalue > 0.01


def test_of_a_good_model_every_image_is_answered():
    promise = promise_error(*draw(1000, seed=0, risk=lambda confidences: 0 * confidences), max_error=0.02)
    assert promise == (-np.inf, 1.0)


def test_more_is_answered_where_more_error_is_allowed():
    shares = [promise_error(*draw(3000, seed=1), max_error=error).share for error in (0.1, 0.15, 0.2, 0.3)]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_the_threshold_leaves_out_what_is_equally_sure():
    confidences, is_right = np.repeat([0.9, 0.2], 300), np.repeat([True, False], 300)
    promise = promise_error(confidences, is_right, max_error=0.05)
    assert promise == (0.2, 0.5)


@pytest.mark.parametrize(("max_error", "num_images"), [(0.02, 149), (0.05, 59), (0.1, 29)])
def test_from_too_few_images_nothing_is_promised(max_error, num_images):
    assert fewest_images(max_error) == num_images
    confidences, is_right = np.linspace(0, 1, num_images), np.ones(num_images, np.bool_)
    assert promise_error(confidences, is_right, max_error=max_error) == (-np.inf, 1.0)
    assert promise_error(confidences[:-1], is_right[:-1], max_error=max_error) is None


@pytest.mark.parametrize("rates", [{"max_error": 0}, {"max_error": 2}, {"max_error": 0.1, "confidence": 95}])
def test_rates_out_of_range_are_refused(rates):
    with pytest.raises(ArgumentError, match=r"must lie between 0 and 1"):
        promise_error(*draw(10, seed=0), **rates)
