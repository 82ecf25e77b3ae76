"""Figures of merit as pure NumPy functions of logits (n, C) and labels (n,).

Ties are broken towards the lower class number, so a figure is the same on every machine. Sums are in float64.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError

Logits = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]
Rates = NDArray[np.float64]


class ConfusedPair(NamedTuple):
    """`num_images` images of class `true` were taken for class `predicted`."""

    true: int
    predicted: int
    num_images: int


def softmax(logits: Logits) -> Rates:
    """Return probabilities (n, C) in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def rank_classes(logits: Logits) -> Counts:
    """Return class numbers (n, C), best first."""
    return np.argsort(-logits, axis=1, kind="stable")


def top_k_correct(logits: Logits, labels: Labels, *, k: int) -> NDArray[np.bool_]:
    """Return (n,), whether the true class is among the k best.

    Raises:
        ArgumentError: shapes disagree, a label or `k` is out of range, or a logit is not finite.
    """
    check_predictions(logits, labels)
    if not 1 <= k <= logits.shape[1]:
        raise ArgumentError(f"k={k} must lie between 1 and the number of classes, {logits.shape[1]}")
    true_logits = np.take_along_axis(logits, labels[:, None], axis=1)  # (n, 1)
    lower = np.arange(logits.shape[1]) < labels[:, None]  # (n, C)
    num_ahead = ((logits > true_logits) | ((logits == true_logits) & lower)).sum(axis=1)
    return np.asarray(num_ahead < k)


def top_k_accuracy(logits: Logits, labels: Labels, *, k: int) -> float:
    """Return the share of images whose true class is among the k best; Raises as `top_k_correct` does."""
    return float(top_k_correct(logits, labels, k=k).mean(dtype=np.float64))


def confusion_matrix(logits: Logits, labels: Labels) -> Counts:
    """Return counts (C, C): rows are true classes, columns the predicted ones; Raises as `top_k_correct` does."""
    check_predictions(logits, labels)
    counts = np.zeros((logits.shape[1], logits.shape[1]), np.int64)
    np.add.at(counts, (labels, logits.argmax(axis=1)), 1)
    return counts


def per_class_accuracy(confusion: Counts) -> Rates:
    """Return the share of each class's images that was right, (C,); NaN for a class without images."""
    num_images = confusion.sum(axis=1)
    return np.asarray(
        np.divide(confusion.diagonal(), num_images, out=np.full(len(confusion), np.nan), where=num_images > 0)
    )


def macro_accuracy(confusion: Counts) -> float:
    """Return the mean of the per-class accuracies, over the classes that have images."""
    return float(np.nanmean(per_class_accuracy(confusion)))


def most_confused_pairs(confusion: Counts, *, limit: int) -> list[ConfusedPair]:
    """Return the commonest mistakes, commonest first, equal ones by class number."""
    wrong = confusion - np.diag(confusion.diagonal())
    true, predicted = np.nonzero(wrong)
    order = np.argsort(-wrong[true, predicted], kind="stable")[:limit]
    return [ConfusedPair(int(true[i]), int(predicted[i]), int(wrong[true[i], predicted[i]])) for i in order]


def check_predictions(logits: Logits, labels: Labels) -> None:
    """Raise ArgumentError unless these are finite logits (n, C) and labels (n,) of the same images, n >= 1."""
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ArgumentError(f"logits {logits.shape} and labels {labels.shape} must be (n, C) and (n,), with n >= 1")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ArgumentError(
            f"labels run from {labels.min()} to {labels.max()}, but must lie in 0 to {logits.shape[1] - 1}: "
            "leave out images whose class is not known"
        )
    if not np.isfinite(logits).all():
        num_bad = int((~np.isfinite(logits).all(axis=1)).sum())
        raise ArgumentError(f"{num_bad} of {len(logits)} images have a logit that is not finite: the model diverged")
