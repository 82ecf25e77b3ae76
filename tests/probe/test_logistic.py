import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from finevote.errors import ArgumentError
from finevote.evaluation.metrics import softmax
from finevote.probe.logistic import Scale, fit_logistic


def make(*, num=150, dim=8, num_classes=4, seed=0):
    """Return overlapping classes whose features have very different scales."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    features = generator.normal(size=(num_classes, dim))[labels] + 1.5 * generator.normal(size=(num, dim))
    return (features * np.logspace(-2, 3, dim) + 7).astype(np.float32), labels


@pytest.mark.parametrize("penalty", [1.0, 1e-2, 1e-4])
def test_probabilities_are_those_of_scikit_learn(penalty):
    features, labels = make()
    oracle = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-8, max_iter=5000))
    oracle.fit(features.astype(np.float64), labels)
    (found,) = fit_logistic(features, labels, num_classes=4, penalties=[penalty])
    expected = oracle.predict_proba(features.astype(np.float64))
    assert softmax(found.logits(features)) == pytest.approx(expected, abs=2e-3)


def test_a_warm_start_leads_to_the_same_minimum():
    features, labels = make()
    *_, warm = fit_logistic(features, labels, num_classes=4, penalties=[1.0, 0.1, 1e-3])
    (cold,) = fit_logistic(features, labels, num_classes=4, penalties=[1e-3])
    assert softmax(warm.logits(features)) == pytest.approx(softmax(cold.logits(features)), abs=2e-3)


def test_the_scale_of_a_feature_does_not_matter():
    features, labels = make()
    factors = np.logspace(3, -3, features.shape[1]).astype(np.float32)
    (first,) = fit_logistic(features, labels, num_classes=4, penalties=[0.01])
    (second,) = fit_logistic(features * factors, labels, num_classes=4, penalties=[0.01])
    assert second.logits(features * factors) == pytest.approx(first.logits(features), abs=1e-2)


def test_a_constant_feature_says_nothing_and_breaks_nothing():
    features, labels = make()
    constant = np.full((len(features), 1), 3.0, np.float32)
    (without,) = fit_logistic(features, labels, num_classes=4, penalties=[0.01])
    (found,) = fit_logistic(np.hstack([features, constant]), labels, num_classes=4, penalties=[0.01])
    assert found.weight[:, -1] == pytest.approx(np.zeros(4), abs=1e-6)
    assert found.logits(np.hstack([features, constant])) == pytest.approx(without.logits(features), abs=1e-2)


def test_standardising_is_folded_into_the_weights():
    features, _ = make()
    scale, generator = Scale.of(features), np.random.default_rng(1)
    weight, bias = generator.normal(size=(4, 8)), generator.normal(size=4)
    folded = scale.fold(weight, bias)
    assert folded.logits(features) == pytest.approx(scale.apply(features) @ weight.T + bias, abs=1e-3)


def test_a_penalty_of_zero_is_refused():
    features, labels = make()
    with pytest.raises(ArgumentError, match="penalties above 0"):
        fit_logistic(features, labels, num_classes=4, penalties=[1.0, 0.0])
