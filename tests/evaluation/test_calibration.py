import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from finevote.errors import ArgumentError
from finevote.evaluation.calibration import (
    apply_temperature,
    brier_scores,
    calibration_error,
    confidences_of,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
)
from finevote.evaluation.metrics import softmax


def simulated(num_images=600, num_classes=5, *, temperature=2.5, seed=0):
    """Return logits and labels drawn from them at that temperature: T is then the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (num_images, num_classes)).astype(np.float32)
    drawn = [rng.choice(num_classes, p=row) for row in softmax(logits / temperature)]
    return logits, np.array(drawn)


def test_the_likelihood_is_that_of_scikit_learn_and_torch():
    logits, labels = simulated()
    expected = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels)).item()
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected)
    assert negative_log_likelihood(logits, labels) == pytest.approx(log_loss(labels, softmax(logits)))


def test_the_likelihood_of_an_impossible_class_is_finite():
    assert negative_log_likelihood(np.array([[0.0, 2000.0]]), np.array([0])) == 2000.0


def test_the_temperature_is_that_of_torch_s_lbfgs():
    logits, labels = simulated()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        scaled = torch.tensor(logits).double() / log_temperature.exp()
        loss = torch.nn.functional.cross_entropy(scaled, torch.tensor(labels))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, labels) == pytest.approx(log_temperature.exp().item(), rel=1e-4)


def test_the_temperature_that_drew_the_labels_is_found():
    assert fit_temperature(*simulated(20_000)) == pytest.approx(2.5, rel=0.03)


def test_the_temperature_lowers_the_error_of_an_overconfident_model_on_new_images():
    temperature = fit_temperature(*simulated(seed=1))
    logits, labels = simulated(3000, seed=2)
    before, after = (
        calibration_error(*confidences_of(apply_temperature(logits, value), labels)) for value in (1.0, temperature)
    )
    assert after < before / 3


def test_a_flawless_model_is_not_made_certain():
    assert fit_temperature(np.eye(3) * 5, np.arange(3)) == 1.0


def test_a_temperature_of_labels_that_do_not_exist_is_refused():
    with pytest.raises(ArgumentError, match="labels run from 0 to 3, but there are 3 classes"):
        fit_temperature(np.eye(3), np.array([0, 1, 3]))
    with pytest.raises(ArgumentError, match="must be finite"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))


def test_brier_is_the_squared_distance_to_the_truth():
    logits, labels = simulated(50)
    probabilities = softmax(logits)
    expected = [
        sum((row[c] - (c == label)) ** 2 for c in range(5)) for row, label in zip(probabilities, labels, strict=True)
    ]
    assert brier_scores(probabilities, labels) == pytest.approx(expected)


@pytest.mark.parametrize(("bins", "strategy"), [("width", "uniform"), ("mass", "quantile")])
def test_bins_are_those_of_scikit_learn(bins, strategy):
    logits, labels = simulated(600)
    confidences, is_right = confidences_of(softmax(logits), labels)
    accuracy, confidence = calibration_curve(is_right, confidences, n_bins=10, strategy=strategy)
    found = reliability_bins(confidences, is_right, bins=bins, num_bins=10)
    assert [row.accuracy for row in found] == pytest.approx(accuracy)
    assert [row.confidence for row in found] == pytest.approx(confidence)
    assert sum(row.num_images for row in found) == 600


def test_the_error_by_width_is_that_of_a_loop_over_bins():
    logits, labels = simulated(200)
    confidences, is_right = confidences_of(softmax(logits), labels)
    expected = 0.0
    for number in range(15):
        inside = (confidences > number / 15) & (confidences <= (number + 1) / 15)
        if inside.any():
            expected += inside.sum() / 200 * abs(is_right[inside].mean() - confidences[inside].mean())
    assert calibration_error(confidences, is_right) == pytest.approx(expected)


def test_fewer_images_than_bins_are_one_bin_each():
    confidences, is_right = np.array([0.5, 0.9]), np.array([True, False])
    assert calibration_error(confidences, is_right, bins="mass") == pytest.approx((0.5 + 0.9) / 2)
