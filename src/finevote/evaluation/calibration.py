"""Can probabilities be believed? Temperature scaling, and figures of how far confidence and accuracy lie apart.

Pure NumPy functions of probabilities (n, C), logits (n, C) and labels (n,); sums are in float64.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.metrics import Labels, Logits, Rates, softmax

NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
Bins = Literal["width", "mass"]


class ReliabilityBin(NamedTuple):
    """The images whose confidence falls into one bin: how many, how sure on average, and the share that is right."""

    num_images: int
    confidence: float
    accuracy: float


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Return T > 0 under which softmax(logits / T) makes the labels likeliest (Guo et al. 2017, section 4.2).

    Within 0.01 to 100, and 1 where every image is named right: the likeliest temperature would then be 0, and every new
    image certain. Ranks never change.

    Raises:
        ArgumentError: there are no images, a label is out of range, or a logit is not finite.
    """
    from scipy.optimize import minimize_scalar

    if not len(labels) or logits.shape[:1] != labels.shape or not np.isfinite(logits).all():
        raise ArgumentError(f"logits {logits.shape} and labels {labels.shape} must be finite, (n, C) and (n,), n >= 1")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ArgumentError(
            f"labels run from {labels.min()} to {labels.max()}, but there are {logits.shape[1]} classes"
        )

    if (logits.argmax(axis=1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_temperature), labels)

    bounds = (float(np.log(MIN_TEMPERATURE)), float(np.log(MAX_TEMPERATURE)))
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    return float(np.exp(best.x))


def apply_temperature(logits: Logits, temperature: float | Rates) -> Rates:
    """Return the probabilities (n, C) of logits at a temperature, one for all images or (n,)."""
    return softmax(logits / np.reshape(np.asarray(temperature, np.float64), (-1, 1)))


def negative_log_likelihood(logits: Logits, labels: Labels) -> float:
    """Return the mean of -log p(label)."""
    return float(negative_log_likelihoods(logits, labels).mean())


def negative_log_likelihoods(logits: Logits, labels: Labels) -> Rates:
    """Return -log p(label) of each image, (n,); from logits, so that it is finite."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - own)


def brier_scores(probabilities: Rates, labels: Labels) -> Rates:
    """Return sum_c (p_c - [c is the label])^2 of each image, (n,), in [0, 2] (Brier 1950)."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return np.asarray((probabilities**2).sum(axis=1) - 2 * own + 1)


def reliability_bins(
    confidences: Rates, is_right: NDArray[np.bool_], *, bins: Bins = "width", num_bins: int = NUM_BINS
) -> tuple[ReliabilityBin, ...]:
    """Return the bins that hold images, the least sure first.

    Args:
        confidences: (n,) probabilities of the predicted classes.
        is_right: (n,).
        bins: "width" cuts [0, 1] into equal parts, each with its right end, not its left; "mass" cuts the images,
            in order of confidence, into parts of equal number, give or take one.
        num_bins: how many.
    """
    numbers = bin_numbers(confidences, bins=bins, num_bins=num_bins)
    parts = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    return tuple(
        ReliabilityBin(len(rows), float(confidences[rows].mean()), float(is_right[rows].mean())) for rows in parts
    )


def bin_numbers(confidences: Rates, *, bins: Bins = "width", num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """Return the number of each image's bin, (n,), from 0 up; arguments as of `reliability_bins`."""
    if bins == "width":
        return np.ceil(confidences * num_bins).astype(np.int64).clip(1, num_bins) - 1
    parts = min(num_bins, len(confidences))
    sizes = len(confidences) // parts + (np.arange(parts) < len(confidences) % parts)
    numbers = np.empty(len(confidences), np.int64)
    numbers[np.argsort(confidences, kind="stable")] = np.repeat(np.arange(parts), sizes)
    return numbers


def calibration_error(
    confidences: Rates, is_right: NDArray[np.bool_], *, bins: Bins = "width", num_bins: int = NUM_BINS
) -> float:
    """Return the expected calibration error, sum_b n_b / n |accuracy_b - confidence_b| (Naeini et al. 2015).

    Arguments as of `reliability_bins`. With few images it is above 0 even for perfect probabilities.
    """
    gaps = is_right - confidences  # summed in a bin of n_b images: n_b (accuracy - confidence)
    sums = np.bincount(bin_numbers(confidences, bins=bins, num_bins=num_bins), weights=gaps)
    return float(np.abs(sums).sum() / len(gaps))


def confidences_of(probabilities: Rates, labels: Labels) -> tuple[Rates, NDArray[Any]]:
    """Return how sure the prediction of each image is, and whether it is right: (n,) and (n,) bool."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
