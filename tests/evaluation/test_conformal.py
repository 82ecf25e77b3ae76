import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.evaluation.conformal import (
    METHODS,
    class_thresholds,
    conformal_rank,
    conformal_threshold,
    coverage_range,
    prediction_sets,
    raps_scores,
    true_scores,
)
from finevote.evaluation.metrics import softmax

each_method = pytest.mark.parametrize("method", METHODS)


def simulated(num_images, *, num_classes=6, seed=0):
    """Return the probabilities of an overconfident model and labels; images are exchangeable."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (num_images, num_classes))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return softmax(2 * logits), labels


@each_method
def test_coverage_over_1000_calibrations_is_at_least_what_is_asked_for(method):
    # Each calibration is judged on one new image, so that the thousand outcomes are independent.
    num_images, coverage, num_trials = 50, 0.9, 1000
    probabilities, labels = simulated((num_images + 1) * num_trials)
    scores = true_scores(probabilities, labels, method=method).reshape(num_trials, num_images + 1)
    thresholds = [conformal_threshold(row[:-1], coverage=coverage) for row in scores]
    covered = np.mean(scores[:, -1] <= thresholds)
    margin = 3 * (coverage * (1 - coverage) / num_trials) ** 0.5
    assert covered >= coverage - margin
    assert covered <= coverage + 1 / (num_images + 1) + margin


@each_method
def test_coverage_of_each_class_over_1000_calibrations_is_at_least_what_is_asked_for(method):
    num_trials, num_classes, coverage = 1000, 3, 0.9
    probabilities, labels = simulated(121 * num_trials, num_classes=num_classes)
    probabilities[:, 0] **= 3  # the model is blind for one class
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = true_scores(probabilities, labels, method=method).reshape(num_trials, 121)
    labels = labels.reshape(num_trials, 121)
    found = [[] for _ in range(num_classes)]
    for row, classes in zip(scores, labels, strict=True):
        thresholds = class_thresholds(row[:-1], classes[:-1], coverage=coverage, num_classes=num_classes)
        found[classes[-1]].append(row[-1] <= thresholds[classes[-1]])
    for covered in found:
        assert np.mean(covered) >= coverage - 3 * (coverage * (1 - coverage) / len(covered)) ** 0.5


@each_method
def test_sets_cover_new_images_within_the_range_of_one_calibration(method):
    threshold = conformal_threshold(true_scores(*simulated(500), method=method), coverage=0.9)
    probabilities, labels = simulated(20_000, seed=1)
    sets = prediction_sets(probabilities, threshold, method=method)
    low, _ = coverage_range(500, coverage=0.9, confidence=0.998)
    assert sets[np.arange(20_000), labels].mean() >= low - 0.005
    assert 1 < sets.sum(axis=1).mean() < 6


def test_class_conditional_sets_cover_every_class_alike():
    probabilities, labels = simulated(6000)
    probabilities[:, 0] **= 4  # the model is blind for one class
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    fit, new = slice(0, 3000), slice(3000, 6000)
    scores = true_scores(probabilities[fit], labels[fit], method="lac")
    shared = conformal_threshold(scores, coverage=0.9)
    own = class_thresholds(scores, labels[fit], coverage=0.9, num_classes=6)
    is_blind = labels[new] == 0
    covered = [
        prediction_sets(probabilities[new], limit, method="lac")[np.arange(3000), labels[new]][is_blind].mean()
        for limit in (shared, own)
    ]
    assert covered[0] < 0.85
    assert covered[1] == pytest.approx(0.9, abs=3 * (0.09 / is_blind.sum()) ** 0.5 + 0.02)


@given(st.integers(1, 400), st.integers(1, 99))
def test_the_threshold_is_the_smallest_score_that_corrects_for_few_images(num_images, percent):
    scores = np.random.default_rng(num_images).permutation(num_images) + 1.0  # the k-th smallest is k
    threshold = conformal_threshold(scores, coverage=percent / 100)
    needed = -(-percent * (num_images + 1) // 100)  # exact in whole numbers
    assert threshold == (needed if needed <= num_images else np.inf)


@given(st.integers(1, 60), st.integers(0, 1000), st.integers(1, 99))
def test_the_thresholds_of_classes_are_those_of_their_own_images(num_images, seed, percent):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, 9, num_images) / 8, rng.integers(0, 4, num_images)
    found = class_thresholds(scores, labels, coverage=percent / 100, num_classes=5)  # of the last there are none
    own = [conformal_threshold(scores[labels == label], coverage=percent / 100) for label in range(5)]
    assert found.tolist() == own


def test_nineteen_images_are_the_fewest_for_95_percent():
    assert conformal_rank(19, coverage=0.95) == 19
    assert conformal_threshold(np.zeros(18), coverage=0.95) == np.inf


def test_tied_scores_are_all_in_the_set():
    sets = prediction_sets(np.array([[0.4, 0.3, 0.3]]), 0.7, method="lac")
    assert sets.tolist() == [[True, True, True]]


def test_scores_are_those_of_a_loop():
    probabilities, _ = simulated(20)
    penalised = raps_scores(probabilities, weight=0.1, num_free_ranks=2)
    for row, aps, raps in zip(probabilities, METHODS["aps"](probabilities), penalised, strict=True):
        for label in range(6):
            ahead = [p for p in row if p >= row[label]]
            assert aps[label] == pytest.approx(sum(ahead))
            assert raps[label] == pytest.approx(sum(ahead) + 0.1 * max(len(ahead) - 2, 0))


@each_method
def test_a_set_is_never_empty_and_at_an_infinite_threshold_holds_every_class(method):
    probabilities, _ = simulated(10)
    likeliest = prediction_sets(probabilities, -1.0, method=method)
    assert likeliest.sum(axis=1).tolist() == [1] * 10
    assert (likeliest.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert prediction_sets(probabilities, np.inf, method=method).all()


def test_the_range_of_coverage_is_that_of_simulated_calibrations():
    rng = np.random.default_rng(0)
    ranked = np.sort(rng.random((4000, 100)), axis=1)  # of uniform scores, the threshold is the coverage
    thresholds = ranked[:, conformal_rank(100, coverage=0.9) - 1]
    low, high = coverage_range(100, coverage=0.9)
    assert np.mean((thresholds >= low) & (thresholds <= high)) == pytest.approx(0.95, abs=0.011)
    assert coverage_range(10, coverage=0.95) == (1.0, 1.0)


def test_a_coverage_in_percent_is_refused():
    with pytest.raises(ArgumentError, match="coverage=95 must lie between 0 and 1"):
        conformal_threshold(np.zeros(30), coverage=95)
