"""Accuracies with their intervals: of images that stand by themselves, or several of which show one subject."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import MACRO_METHOD, Interval, macro_interval, wilson_interval

METHOD = "Wilson"
GROUPED_METHOD = "Wilson at the effective sample size of a sample of groups"
GROUPED_MACRO_METHOD = "Wilson at the effective sample size of groups, stratified by class"
Groups = Sequence[Hashable] | NDArray[np.str_]


class Accuracy(NamedTuple):
    """A share in [0, 1] with its interval, and how that was made."""

    value: float
    low: float
    high: float
    method: str


def share(is_right: ArrayLike, *, groups: Groups | None = None, confidence: float = 0.95) -> Accuracy:
    """Return the share of images (n,) that are right, with an interval for images or for whole groups.

    Raises:
        ArgumentError: there are no images, or not a group for each.
    """
    right = np.asarray(is_right, np.bool_)
    value = float(right.mean()) if len(right) else 0.0
    if groups is None:
        return Accuracy(value, *wilson_interval(int(right.sum()), len(right), confidence=confidence), METHOD)
    interval = grouped_interval(right, np.zeros(len(right), np.int64), groups=groups, confidence=confidence)
    return Accuracy(value, *interval, GROUPED_METHOD)


def macro_share(
    is_right: ArrayLike, labels: NDArray[np.integer], *, groups: Groups | None = None, confidence: float = 0.95
) -> Accuracy:
    """Return the mean of the classes' shares of right images (n,), with an interval; Raises as `share` does."""
    right = np.asarray(is_right, np.bool_)
    num_images = np.bincount(labels)
    num_right = np.bincount(labels, weights=right)
    present = num_images > 0
    value = float((num_right[present] / num_images[present]).mean())
    if groups is None:
        return Accuracy(value, *macro_interval(num_right, num_images, confidence=confidence), MACRO_METHOD)
    interval = grouped_interval(right, labels, groups=groups, confidence=confidence)
    return Accuracy(value, *interval, GROUPED_MACRO_METHOD)


def grouped_interval(
    is_right: NDArray[np.bool_], labels: NDArray[np.integer], *, groups: Groups, confidence: float = 0.95
) -> Interval:
    """Return the interval of the mean m of the classes' accuracies p_c, where images of a group go together.

    It is Wilson's at the effective sample size m (1 - m) / V (Korn and Graubard 1998; Dean and Pagano 2015). V is
    mixed from two variances of m. The one is estimated from the groups (Taylor linearisation, stratified by class):
    sum_g (sum_i (right_i - p_c) f_c / n_c)^2 / C^2 with f_c^2 = G_c / (G_c - 1), where G_c groups show class c; one
    that a single group shows counts m (1 - m). The other is that of groups whose images are all alike,
    m (1 - m) sum_c sum_g (n_gc / n_c)^2 / C^2. Its weight is 1 / (1 + k), with k the groups that hold a right image, or
    those that hold a wrong one, whichever are fewer: where all is right nothing can be estimated, and the interval is
    that of as many images as there are groups. The number of images bounds the effective sample size, and Student's t
    takes the place of the normal quantile (Satterthwaite's degrees of freedom).

    The percentile bootstrap of groups is a point where all is right, and covers the truth far less often where groups
    are few or mistakes rare (benchmarks/results/intervals).

    Args:
        is_right: (n,).
        labels: (n,) classes; all 0 for the plain share.
        groups: (n,) whom each image shows.
        confidence: of the interval.

    Raises:
        ArgumentError: there are no images, or not a group for each.
    """
    if not len(is_right) or len(groups) != len(is_right):
        raise ArgumentError(f"{len(is_right)} images with {len(groups)} groups: give one or more, and a group for each")
    _, members = np.unique(np.asarray(groups, np.str_), return_inverse=True)
    _, classes, num_images = np.unique(labels, return_inverse=True, return_counts=True)
    num_classes = len(num_images)
    rates = np.bincount(classes, weights=is_right) / num_images  # (C,)
    mean = float(rates.mean())
    whole = mean * (1 - mean)

    cells, cell_sizes = np.unique(members * num_classes + classes, return_counts=True)
    num_groups = np.bincount(cells % num_classes, minlength=num_classes)  # (C,)
    spread = np.sqrt(num_groups / np.maximum(num_groups - 1, 1)) / (num_images * num_classes)
    sums = np.bincount(members, weights=(is_right - rates[classes]) * spread[classes])  # (G,)
    estimated = float((sums**2).sum()) + whole * float((num_groups == 1).sum()) / num_classes**2
    alike = float(((cell_sizes / num_images[cells % num_classes]) ** 2).sum()) / num_classes**2

    num_rarer = min(len(np.unique(members[is_right])), len(np.unique(members[~is_right])))
    weight = 1 / (1 + num_rarer)
    variance = (1 - weight) * estimated + weight * whole * alike
    if not variance:
        return wilson_interval(mean / alike, 1 / alike, confidence=confidence)
    freedom = max(int((num_groups - 1).sum()), 1) * (variance / max((1 - weight) * estimated, 1e-12 * variance)) ** 2
    z, t = (
        float(quantile)
        for quantile in (stats.norm.ppf(0.5 + confidence / 2), stats.t.ppf(0.5 + confidence / 2, freedom))
    )
    most = num_classes**2 / float((1 / num_images).sum())
    effective = min(whole / variance * (z / t) ** 2, most)
    return wilson_interval(mean * effective, effective, confidence=confidence)
