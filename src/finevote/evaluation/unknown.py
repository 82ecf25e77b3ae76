"""Does an image belong to none of the classes? Scores, a threshold for a stated false-alarm rate, and figures of merit.

Every score is higher for images that are less like those of the known classes.
"""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.conformal import conformal_threshold
from finevote.evaluation.metrics import Labels, Logits, Rates, softmax

METHODS = ("distance", "energy", "max_softmax")


def unknown_scores(
    logits: Logits, embeddings: NDArray[np.floating] | None, *, temperature: float, means: Rates | None
) -> dict[str, Rates]:
    """Return the scores (n,) by each of `METHODS`; without embeddings (n, D) or `means` (C, D), none by "distance".

    "max_softmax" is at the temperature: 1 minus the probability of the likeliest class as it is told to people.
    """
    scores = {"energy": energy_scores(logits), "max_softmax": max_softmax_scores(logits / np.float64(temperature))}
    if embeddings is None or means is None:
        return scores
    return {"distance": distance_scores(embeddings, means), **scores}


def max_softmax_scores(logits: Logits) -> Rates:
    """Return 1 - max_c p_c, (n,) (Hendrycks and Gimpel 2017)."""
    return np.asarray(1 - softmax(logits).max(axis=1))


def energy_scores(logits: Logits) -> Rates:
    """Return -log sum_c exp(logit_c), (n,) (Liu et al. 2020)."""
    peak = logits.max(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(-(peak[:, 0] + np.log(np.exp(logits - peak).sum(axis=1))))


def class_means(embeddings: NDArray[np.floating], labels: Labels, *, num_classes: int) -> Rates:
    """Return the mean direction of each class's embeddings, (C, D), of length 1; NaN for a class without images."""
    directions = _directions(embeddings)
    sums = np.zeros((num_classes, embeddings.shape[1]))
    np.add.at(sums, labels, directions)
    sums[np.bincount(labels, minlength=num_classes) == 0] = np.nan
    return _directions(sums)


def distance_scores(embeddings: NDArray[np.floating], means: Rates) -> Rates:
    """Return the cosine distance to the nearest class mean, (n,) in [0, 2]; `means` (C, D) as `class_means` gives."""
    known = means[~np.isnan(means).any(axis=1)]
    return np.asarray(1 - (_directions(embeddings) @ known.T).max(axis=1))


def alarm_threshold(known_scores: Rates, *, false_alarms: float) -> float:
    """Return the score above which an image is called unknown, from scores of images of known classes.

    A new image of a known class is called unknown with probability of at most `false_alarms`, on average over such
    calibrations; infinity, which calls nothing unknown, where there are too few images to promise that.

    Raises:
        ArgumentError: `false_alarms` is not between 0 and 1.
    """
    if not 0 < false_alarms < 1:
        raise ArgumentError(f"false_alarms={false_alarms:g} must lie between 0 and 1, e.g. 0.05")
    return conformal_threshold(known_scores, coverage=1 - false_alarms)


def fewest_images(false_alarms: float) -> int:
    """Return how many images of known classes a threshold for this rate of false alarms takes, 0 < rate < 1."""
    return ceil(round(1 / false_alarms, 9)) - 1


def auroc(known_scores: Rates, unknown_scores: Rates) -> float:
    """Return the probability that an unknown image scores above a known one, a tie counting half."""
    known = np.sort(known_scores)
    below = np.searchsorted(known, unknown_scores, side="left") + np.searchsorted(known, unknown_scores, side="right")
    return float(below.mean() / (2 * len(known)))


def pass_threshold(known_scores: Rates, *, recall: float = 0.95) -> float:
    """Return the score that the share `recall` of known images do not exceed."""
    kept = int(np.ceil(round(recall * len(known_scores), 9)))
    return float(np.sort(known_scores)[max(kept, 1) - 1])


def false_positive_rate(known_scores: Rates, unknown_scores: Rates, *, recall: float = 0.95) -> float:
    """Return the share of unknown images that pass as known, where `recall` of the known ones do."""
    return float((unknown_scores <= pass_threshold(known_scores, recall=recall)).mean())


def _directions(vectors: NDArray[np.floating]) -> Rates:
    vectors = np.asarray(vectors, np.float64)
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
