"""Sets of classes that hold the true one with a stated probability: split conformal prediction, pure NumPy.

A score says how badly a class fits an image; a set holds the classes whose score is at most a threshold, a quantile of
the true classes' scores on calibration images. If these and a new image are exchangeable, its set holds its class with
probability of at least the coverage asked for (Vovk, Gammerman and Shafer 2005; Angelopoulos and Bates 2021).
"""

from collections.abc import Callable, Mapping
from math import ceil
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import Interval
from finevote.evaluation.metrics import Labels, Rates, rank_classes

RAPS_WEIGHT, RAPS_FREE_RANKS = 0.01, 5


def lac_scores(probabilities: Rates) -> Rates:
    """Return 1 - p_c, (n, C): the smallest sets on average, uneven over easy and hard images (Sadinle et al. 2019)."""
    return 1 - probabilities


def aps_scores(probabilities: Rates) -> Rates:
    """Return the probability of the classes up to c in order of probability, (n, C) (Romano et al. 2020).

    Not randomised, so that an image has one answer; coverage is then above what is asked for rather than equal to it.
    """
    order = rank_classes(probabilities)
    sums = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def raps_scores(probabilities: Rates, *, weight: float = RAPS_WEIGHT, num_free_ranks: int = RAPS_FREE_RANKS) -> Rates:
    """Return APS with a penalty of `weight` for each rank after the free ones, (n, C) (Angelopoulos et al. 2021)."""
    order = rank_classes(probabilities)
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[None], axis=1)
    return aps_scores(probabilities) + weight * np.maximum(ranks - num_free_ranks, 0)


METHODS: Mapping[str, Callable[[Rates], Rates]] = MappingProxyType(
    {"lac": lac_scores, "aps": aps_scores, "raps": raps_scores}
)


def true_scores(probabilities: Rates, labels: Labels, *, method: str) -> Rates:
    """Return the score of each image's own class, (n,), to calibrate with."""
    return np.take_along_axis(METHODS[method](probabilities), labels[:, None], axis=1)[:, 0]


def conformal_threshold(scores: Rates, *, coverage: float) -> float:
    """Return the ceil((n + 1) coverage)-th smallest of n scores; infinity where n is too small for the coverage.

    Raises:
        ArgumentError: `coverage` is not between 0 and 1.
    """
    rank = conformal_rank(len(scores), coverage=coverage)
    return float("inf") if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def class_thresholds(scores: Rates, labels: Labels, *, coverage: float, num_classes: int) -> Rates:
    """Return a threshold for each class from its own images, (C,): coverage then holds class by class.

    A class with too few images, fewer than 19 for 95%, has an infinite one and is in every set.
    """
    num_images = np.bincount(labels, minlength=num_classes)
    ranks = np.array([conformal_rank(int(number), coverage=coverage) for number in num_images])
    ordered, starts = scores[np.lexsort((scores, labels))], np.cumsum(num_images) - num_images  # class after class
    thresholds, is_enough = np.full(num_classes, np.inf), ranks <= num_images
    thresholds[is_enough] = ordered[(starts + ranks - 1)[is_enough]]
    return thresholds


def conformal_rank(num_images: int, *, coverage: float) -> int:
    """Return which of the sorted scores is the threshold, counted from 1; n + 1 stands for infinity."""
    if not 0 < coverage < 1:
        raise ArgumentError(f"coverage={coverage:g} must lie between 0 and 1, e.g. 0.95")
    return ceil(round((num_images + 1) * coverage, 9))  # 0.95 x 20 is 19, whatever floats say


def fewest_images(coverage: float) -> int:
    """Return how many images a threshold below infinity takes, 0 < `coverage` < 1: 19 for 95%."""
    return ceil(round(coverage / (1 - coverage), 9))


def prediction_sets(probabilities: Rates, threshold: float | Rates, *, method: str) -> NDArray[np.bool_]:
    """Return which classes each set holds, (n, C); the likeliest class is always in, which adds to coverage.

    `threshold` is one number, one for each class (C,), or one for each image (n, 1).
    """
    sets = METHODS[method](probabilities) <= threshold
    np.put_along_axis(sets, probabilities.argmax(axis=1)[:, None], values=True, axis=1)
    return np.asarray(sets)


def coverage_range(num_images: int, *, coverage: float, confidence: float = 0.95) -> Interval:
    """Return between what the coverage lies that one calibration on n images gives, with probability `confidence`.

    Over calibrations it is Beta(k, n + 1 - k) with k = ceil((n + 1) coverage) (Vovk 2012), on average at least what is
    asked for; with few images, one calibration may be far from that. Exactly 1 where every set holds all classes.
    """
    rank = conformal_rank(num_images, coverage=coverage)
    if rank > num_images:
        return Interval(1.0, 1.0)
    tail = (1 - confidence) / 2
    found = beta(rank, num_images + 1 - rank)
    return Interval(float(found.ppf(tail)), float(found.ppf(1 - tail)))
