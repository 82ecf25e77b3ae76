"""Intervals of a mean over images whose values are skewed: likelihoods, squared errors, sizes of sets."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import Interval, wilson_interval

_LEAST_SKEWNESS = 1e-6  # below it the correction is 0 to double precision, and a quotient of two of those


def mean_interval(
    values: ArrayLike,
    *,
    groups: Sequence[Hashable] | NDArray[np.str_] | None = None,
    confidence: float = 0.95,
    reach: float = 0.0,
) -> Interval:
    """Return the interval of a mean by Hall's cubic transformation of Student's t (Hall 1992).

    With g the skewness of n values and x = t / sqrt(n), the ends are m - s h(x) and m - s h(-x), where
    h(x) = 3 (cbrt(1 + g (x - g / (6 n))) - 1) / g. The mean of a few values with a long tail is itself skewed, and an
    interval of equal arms, or that of a percentile bootstrap, too often ends below the truth.

    The mean of images that go together by groups is a ratio, and its values are those of its linearisation, one for
    each group: m + (sum of its values - m times its images) / mean number of images.

    Args:
        values: (n,) one for each image.
        groups: (n,) whom each image shows; None where each stands by itself.
        confidence: of the interval.
        reach: where all values are equal, how much larger the unseen ones may be: the upper end is then this times the
            Wilson bound of their share above the value, rather than the value itself.

    Raises:
        ArgumentError: there are no images, or not a group for each.
    """
    found = np.asarray(values, np.float64)
    if not len(found) or (groups is not None and len(groups) != len(found)):
        given = "no groups" if groups is None else f"{len(groups)} groups"
        raise ArgumentError(f"{len(found)} values with {given}: give one or more, and a group for each, or None")
    mean = float(found.mean())
    if groups is not None:
        _, members = np.unique(np.asarray(groups, np.str_), return_inverse=True)
        sizes = np.bincount(members)
        found = mean + (np.bincount(members, weights=found) - mean * sizes) / sizes.mean()
    num_units = len(found)
    deviation = float(found.std(ddof=1)) if num_units > 1 else 0.0
    if deviation <= 1e-12 * max(abs(mean), 1.0):
        return Interval(mean, mean + reach * wilson_interval(0, num_units, confidence=confidence).high)
    skewness = float(stats.skew(found))
    quantile = float(stats.t.ppf(0.5 + confidence / 2, num_units - 1)) / num_units**0.5
    return Interval(*(mean - deviation * _cubic(x, skewness, num_units=num_units) for x in (quantile, -quantile)))


def _cubic(x: float, skewness: float, *, num_units: int) -> float:
    if abs(skewness) < _LEAST_SKEWNESS:
        return x
    return float(3 * (np.cbrt(1 + skewness * (x - skewness / (6 * num_units))) - 1) / skewness)
