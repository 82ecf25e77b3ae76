import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from finevote.errors import ArgumentError
from finevote.evaluation.unknown import (
    alarm_threshold,
    auroc,
    class_means,
    distance_scores,
    energy_scores,
    false_positive_rate,
    fewest_images,
    max_softmax_scores,
    unknown_scores,
)


def scores(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, 300).round(1), rng.normal(1, 1, 200).round(1)  # with ties


def test_logit_scores_are_those_of_torch():
    logits = np.random.default_rng(0).normal(0, 300, (20, 4)).astype(np.float32)
    tensor = torch.tensor(logits).double()
    assert energy_scores(logits) == pytest.approx(-tensor.logsumexp(1).numpy())
    assert max_softmax_scores(logits) == pytest.approx(1 - tensor.softmax(1).max(1).values.numpy())


def test_the_distance_is_that_to_the_nearest_class_mean_in_a_loop():
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(30, 8)).astype(np.float32), rng.integers(0, 3, 30)
    means = class_means(embeddings, labels, num_classes=4)
    assert np.isnan(means[3]).all()
    lengths = np.linalg.norm(embeddings, axis=1)
    expected = []
    for vector, length in zip(embeddings, lengths, strict=True):
        cosines = []
        for label in range(3):
            mean = np.mean(
                [e / n for e, n, own in zip(embeddings, lengths, labels, strict=True) if own == label], axis=0
            )
            cosines.append(vector @ mean / length / np.linalg.norm(mean))
        expected.append(1 - max(cosines))
    assert distance_scores(embeddings, means) == pytest.approx(expected, abs=1e-6)


def test_the_area_is_that_of_scikit_learn():
    known, unknown = scores()
    expected = roc_auc_score([0] * 300 + [1] * 200, np.concatenate([known, unknown]))
    assert auroc(known, unknown) == pytest.approx(expected)


def test_the_false_positives_are_those_of_scikit_learn():
    known, unknown = scores()
    passed, kept, _ = roc_curve([1] * 300 + [0] * 200, -np.concatenate([known, unknown]), drop_intermediate=False)
    assert false_positive_rate(known, unknown) == pytest.approx(passed[kept >= 0.95][0])


def test_alarms_of_known_images_are_as_rare_as_stated():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2000, 61))
    alarms = [row[-1] > alarm_threshold(row[:-1], false_alarms=0.1) for row in draws]
    assert np.mean(alarms) == pytest.approx(0.1, abs=1 / 61 + 3 * (0.09 / 2000) ** 0.5)


def test_too_few_images_raise_no_alarm():
    assert alarm_threshold(np.zeros(10), false_alarms=0.05) == np.inf
    with pytest.raises(ArgumentError, match="false_alarms=5 must lie between 0 and 1"):
        alarm_threshold(np.zeros(10), false_alarms=5)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 0.3, 0.5, 0.77])
def test_the_fewest_images_are_those_from_which_an_alarm_can_be_raised(rate):
    num_images = fewest_images(rate)
    assert alarm_threshold(np.zeros(num_images), false_alarms=rate) == 0
    assert alarm_threshold(np.zeros(num_images - 1), false_alarms=rate) == np.inf


def test_likeliness_is_at_the_temperature_and_distance_needs_means():
    rng = np.random.default_rng(0)
    logits, embeddings, means = rng.normal(0, 3, (9, 4)), rng.normal(size=(9, 5)), rng.normal(size=(4, 5))
    found = unknown_scores(logits, embeddings, temperature=2.0, means=means)
    assert list(found) == ["distance", "energy", "max_softmax"]
    assert found["max_softmax"] == pytest.approx(max_softmax_scores(logits / 2))
    assert found["energy"] == pytest.approx(energy_scores(logits))
    assert found["distance"] == pytest.approx(distance_scores(embeddings, means))
    for without in ({"embeddings": None, "means": means}, {"embeddings": embeddings, "means": None}):
        assert "distance" not in unknown_scores(logits, **without, temperature=2.0)
