"""Confidence intervals of accuracies, and of an area under ROC, from counts alone."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import ndtri

from finevote.errors import ArgumentError

MACRO_METHOD = "Wilson at the effective sample size of a sample stratified by class"


class Interval(NamedTuple):
    """The two ends of an interval, as shares in [0, 1]."""

    low: float
    high: float


def wilson_interval(num_correct: float, num_trials: float, *, confidence: float = 0.95) -> Interval:
    """Return the Wilson score interval of a proportion (Wilson 1927), without continuity correction.

    The counts need not be whole, so that an effective sample size can be given.

    Raises:
        ArgumentError: there are no trials, or `num_correct` or `confidence` is out of range.
    """
    if num_trials <= 0 or not 0 <= num_correct <= num_trials:
        raise ArgumentError(f"{num_correct} right of {num_trials} trials: give 0 <= right <= trials and trials > 0")
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence} must lie between 0 and 1, e.g. 0.95")
    z = float(ndtri(0.5 + confidence / 2))
    share, inverse = num_correct / num_trials, z * z / num_trials
    centre = (share + inverse / 2) / (1 + inverse)
    half_width = (share * (1 - share) * inverse + inverse**2 / 4) ** 0.5 / (1 + inverse)
    low = 0.0 if num_correct == 0 else max(centre - half_width, 0.0)
    high = 1.0 if num_correct == num_trials else min(centre + half_width, 1.0)
    return Interval(low, high)


def macro_interval(num_correct: ArrayLike, num_images: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Return the interval of macro accuracy, the mean of per-class rates, from per-class counts (C,).

    The mean of class rates is no proportion of n images, so the Wilson interval is taken at an effective sample size:
    the smaller of m (1 - m) / V, with m the macro accuracy and V its variance as a stratified sample,
    V = sum_c p_c (1 - p_c) / (n_c - 1) / C^2 (a class with one image counts m (1 - m)), and of Kish's
    C^2 / sum_c (1 / n_c), which V cannot be trusted to beat in small classes. Unlike a normal or bootstrap interval it
    does not shrink to a point when every image is right. Classes without images are left out. In simulations it covers
    the truth 94 to 99 times in 100, and less often only where the few mistakes to come all lie in classes of a handful
    of images.

    Raises:
        ArgumentError: the counts disagree in shape or order, or no class has an image.
    """
    correct, images = np.asarray(num_correct, np.float64), np.asarray(num_images, np.float64)
    if correct.shape != images.shape or correct.ndim != 1 or (correct > images).any() or not (images > 0).any():
        raise ArgumentError(
            f"per-class counts of shapes {correct.shape} and {images.shape}: give two rows of C counts, "
            "right <= images, with at least one image"
        )
    correct, images = correct[images > 0], images[images > 0]
    rates, num_classes = correct / images, len(images)
    macro = float(rates.mean())
    whole = macro * (1 - macro)
    variances = np.where(images > 1, rates * (1 - rates) / np.maximum(images - 1, 1), whole)
    variance = float(variances.sum()) / num_classes**2
    kish = num_classes**2 / float((1 / images).sum())
    effective = kish if variance == 0 else min(whole / variance, kish)
    return wilson_interval(min(macro, 1.0) * effective, effective, confidence=confidence)


def area_interval(area: float, num_known: int, num_unknown: int, *, confidence: float = 0.95) -> Interval:
    """Return the interval of an area under ROC in [0, 1], by a score method (Newcombe 2006, part 2, method 5).

    It holds the areas a with (a - area)^2 <= z^2 V, where m n V = a (1 - a) (1 + k (1 - a) / (2 - a) + k a / (1 + a))
    and k = (m + n) / 2 - 1, after Hanley and McNeil's variance (1982). Unlike a bootstrap interval it is no point where
    all is told apart.

    Args:
        area: what was found.
        num_known: m, the images, or the subjects, of the one kind.
        num_unknown: n, those of the other.
        confidence: of the interval.
    """
    z, k = float(ndtri(0.5 + confidence / 2)), (num_known + num_unknown) / 2 - 1

    def excess(a: float, found: float) -> float:
        variance = a * (1 - a) * (1 + k * (1 - a) / (2 - a) + k * a / (1 + a)) / (num_known * num_unknown)
        return (found - a) ** 2 - z * z * variance

    low, rest = (
        float(brentq(excess, 0.0, found - 1e-9, args=(found,))) if found > 1e-6 else 0.0 for found in (area, 1 - area)
    )
    return Interval(low, 1 - rest)  # V(a) = V(1 - a)
