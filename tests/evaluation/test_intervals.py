import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, bootstrap, norm

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import area_interval, macro_interval, wilson_interval
from finevote.evaluation.unknown import auroc

counts = st.integers(1, 5000).flatmap(lambda trials: st.tuples(st.integers(0, trials), st.just(trials)))


@given(counts, st.floats(0.5, 0.999))
def test_wilson_agrees_with_scipy(count, confidence):
    num_correct, num_trials = count
    expected = binomtest(num_correct, num_trials).proportion_ci(confidence, method="wilson")
    got = wilson_interval(num_correct, num_trials, confidence=confidence)
    assert got.low == pytest.approx(expected.low, abs=1e-12)
    assert got.high == pytest.approx(expected.high, abs=1e-12)


@pytest.mark.parametrize("num_trials", [50, 500, 5000])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_wilson_covers_the_truth_93_to_97_times_in_100(rate, num_trials):
    counts = np.arange(num_trials + 1)
    held = [low <= rate <= high for low, high in (wilson_interval(count, num_trials) for count in counts)]
    covered = binom.pmf(counts, num_trials, rate)[held].sum()
    if (rate, num_trials) == (0.99, 50):  # half a mistake is expected, and none is seen 60 times in 100
        assert covered == pytest.approx(0.911, abs=0.001)
    else:
        assert 0.93 <= covered <= 0.9705


def test_wilson_keeps_width_when_every_image_is_right():
    interval = wilson_interval(100, 100)
    assert interval.high == 1.0
    assert interval.low == pytest.approx(0.963, abs=1e-3)


@pytest.mark.parametrize(("num_correct", "num_trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(num_correct, num_trials):
    with pytest.raises(ArgumentError, match=r"right of \d trials"):
        wilson_interval(num_correct, num_trials)


def test_wilson_refuses_a_confidence_in_percent():
    with pytest.raises(ArgumentError, match="confidence=95"):
        wilson_interval(1, 2, confidence=95)


@given(st.integers(0, 30), st.just(30))
def test_macro_of_one_class_is_at_least_as_wide_as_wilson(num_correct, num_images):
    wilson = wilson_interval(num_correct, num_images)
    macro = macro_interval([num_correct], [num_images])
    assert macro.high - macro.low >= wilson.high - wilson.low - 1e-12


@given(st.lists(counts, min_size=1, max_size=20))
def test_macro_interval_holds_the_macro_accuracy(pairs):
    num_correct, num_images = np.array(pairs).T
    interval = macro_interval(num_correct, num_images)
    assert 0 <= interval.low <= (num_correct / num_images).mean() + 1e-12
    assert (num_correct / num_images).mean() - 1e-12 <= interval.high <= 1


@pytest.mark.parametrize(
    ("num_images", "rate"), [(np.full(50, 10), 0.9), (np.arange(5, 55), 0.7), (np.full(8, 40), 0.5)]
)
def test_macro_interval_covers_the_truth_about_95_times_in_100(num_images, rate):
    rng = np.random.default_rng(0)
    rates = rng.beta(rate * 6, (1 - rate) * 6, len(num_images))
    draws = rng.binomial(num_images, rates, (1000, len(num_images)))
    intervals = [macro_interval(draw, num_images) for draw in draws]
    coverage = np.mean([interval.low <= rates.mean() <= interval.high for interval in intervals])
    assert 0.935 <= coverage <= 0.99


def test_macro_interval_leaves_out_classes_without_images():
    assert macro_interval([3, 0, 4], [5, 0, 5]) == macro_interval([3, 4], [5, 5])


def test_macro_interval_refuses_more_right_than_images():
    with pytest.raises(ArgumentError, match="right <= images"):
        macro_interval([3], [2])


@given(st.floats(0, 1), st.integers(1, 400), st.integers(1, 400))
def test_an_area_s_interval_holds_it_and_is_mirrored_where_the_kinds_are_exchanged(area, num_known, num_unknown):
    found, mirrored = area_interval(area, num_known, num_unknown), area_interval(1 - area, num_unknown, num_known)
    assert 0 <= found.low <= area + 1e-9
    assert area - 1e-9 <= found.high <= 1
    assert found.low < found.high
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-6)


@pytest.mark.parametrize(("num_known", "num_unknown"), [(50, 50), (300, 40), (40, 300)])
@pytest.mark.parametrize("area", [0.5, 0.8, 0.97, 0.999])
def test_an_area_s_interval_covers_the_truth_of_scores_that_are_normal(area, num_known, num_unknown):
    rng = np.random.default_rng(0)
    shift = 2**0.5 * norm.ppf(area)
    covered = 0
    for _ in range(400):
        found = auroc(rng.normal(size=num_known), rng.normal(shift, 1, num_unknown))
        low, high = area_interval(found, num_known, num_unknown)
        covered += low <= area <= high
    assert covered / 400 >= 0.92


def test_an_area_s_interval_is_about_that_of_a_bootstrap_where_neither_end_is_near():
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(size=400), rng.normal(0.7, 1, 300)
    expected = bootstrap((known, unknown), auroc, n_resamples=2000, vectorized=False, rng=rng).confidence_interval
    found = area_interval(auroc(known, unknown), 400, 300)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)
