"""Statistics beside independent implementations: statsmodels, scikit-learn, MAPIE."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import APSConformityScore, RAPSConformityScore
from mapie.metrics.calibration import expected_calibration_error
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import StratifiedShuffleSplit
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_oracle
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from finevote.evaluation.calibration import (
    apply_temperature,
    brier_scores,
    calibration_error,
    confidences_of,
    fit_temperature,
    negative_log_likelihood,
)
from finevote.evaluation.conformal import conformal_threshold, prediction_sets, raps_scores, true_scores
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.metrics import softmax
from finevote.evaluation.paired import holm, paired_test


def simulated(num_images, *, num_classes=12, seed=0):
    """Return logits of an over-confident model, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (num_images, num_classes))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return 1.7 * logits, labels


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_is_that_of_statsmodels(counts, confidence):
    expected = proportion_confint(*counts, alpha=1 - confidence, method="wilson")
    assert wilson_interval(*counts, confidence=confidence) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_mcnemar_is_that_of_statsmodels(rows):
    first, second = np.array(rows).T
    table = [[(a & b).sum() for b in (second, ~second)] for a in (first, ~first)]
    assert paired_test(first, second).p_value == pytest.approx(mcnemar_oracle(table, exact=True).pvalue)


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_brier_and_likelihood_are_those_of_scikit_learn():
    logits, labels = simulated(300)
    probabilities = softmax(logits)
    expected = brier_score_loss(labels, probabilities, labels=range(12), scale_by_half=False)
    assert brier_scores(probabilities, labels).mean() == pytest.approx(expected)
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, probabilities, labels=range(12)))


def test_the_calibration_error_is_that_of_mapie():
    confidences, is_right = confidences_of(softmax(simulated(2000)[0]), simulated(2000)[1])
    expected = expected_calibration_error(is_right, confidences, num_bins=15, split_strategy="uniform")
    assert calibration_error(confidences, is_right) == pytest.approx(expected)


class Table(ClassifierMixin, BaseEstimator):
    """A classifier that scikit-learn and MAPIE can ask: its input are logits, and it answers with these."""

    def fit(self, logits, labels):  # noqa: ARG002
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, logits):
        return logits

    def predict_proba(self, logits):
        return softmax(logits)

    def predict(self, logits):
        return self.classes_[logits.argmax(axis=1)]


def test_the_temperature_is_that_of_scikit_learn():
    logits, labels = simulated(800)
    table = FrozenEstimator(Table().fit(logits, labels))
    oracle = CalibratedClassifierCV(table, method="temperature").fit(logits, labels)
    temperature = fit_temperature(logits, labels)
    assert apply_temperature(logits, temperature) == pytest.approx(oracle.predict_proba(logits), abs=1e-4)
    assert temperature > 1.3


class NeverAtRandom(np.random.RandomState):
    """MAPIE lessens calibration scores of APS and RAPS by a random share of the last class; ours stay whole."""

    def uniform(self, low=0.0, high=1.0, size=None):  # noqa: ARG002
        return np.zeros(size)


def mapie_sets(score, calibrating, new, *, coverage):
    """Return the sets (n, C) of MAPIE, without randomisation and without the class that oversteps the threshold."""
    logits, labels = calibrating
    oracle = SplitConformalClassifier(
        Table().fit(logits, np.arange(logits.shape[1])),
        confidence_level=coverage,
        conformity_score=score,
        random_state=NeverAtRandom(0),
    ).conformalize(logits, labels)
    settings = {} if score == "lac" else {"include_last_label": False}
    return oracle.predict_set(new, conformity_score_params=settings)[1][:, :, 0]


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("seed", range(3))
def test_sets_are_those_of_mapie(method, coverage, seed):
    logits, labels = simulated(400, seed=seed)
    new, _ = simulated(1000, seed=seed + 100)
    score = APSConformityScore() if method == "aps" else method
    expected = mapie_sets(score, (logits, labels), new, coverage=coverage)
    threshold = conformal_threshold(true_scores(softmax(logits), labels, method=method), coverage=coverage)
    sets = prediction_sets(softmax(new), threshold, method=method)
    # By LAC, MAPIE leaves a set empty where even the likeliest class is over the threshold; ours then holds that one.
    if method == "lac":
        expected[~expected.any(axis=1), softmax(new).argmax(axis=1)[~expected.any(axis=1)]] = True
    assert (sets == expected).all()


@pytest.mark.parametrize("seed", range(5))
def test_penalised_sets_are_those_of_mapie_with_its_choice_of_penalty(seed):
    logits, labels = simulated(500, seed=seed)
    new, _ = simulated(1000, seed=seed + 100)
    score = RAPSConformityScore()
    expected = mapie_sets(score, (logits, labels), new, coverage=0.9)
    # MAPIE chooses the constants on a part of the images and calibrates on the others.
    split = StratifiedShuffleSplit(n_splits=1, test_size=score.size_raps, random_state=NeverAtRandom(0))
    rows, _ = next(split.split(logits, labels))
    constants = {"weight": float(score.lambda_star), "num_free_ranks": int(score.k_star[0])}
    scores = raps_scores(softmax(logits[rows]), **constants)
    threshold = conformal_threshold(scores[np.arange(len(rows)), labels[rows]], coverage=0.9)
    sets = raps_scores(softmax(new), **constants) <= threshold
    sets[np.arange(1000), new.argmax(axis=1)] = True
    assert (sets == expected).all()
