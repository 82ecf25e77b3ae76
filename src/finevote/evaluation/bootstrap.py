"""Bootstrap intervals of figures that are no plain share of images; images of a group are drawn together."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import Interval

NUM_RESAMPLES = 1000


def bootstrap_intervals(
    statistic: Callable[[NDArray[np.int64]], Sequence[float]],
    num_images: int,
    *,
    groups: Sequence[Hashable] | NDArray[np.str_] | None = None,
    strata: Sequence[NDArray[np.int64]] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Interval]:
    """Return the expanded percentile interval (Hesterberg 2015) of each figure that `statistic` gives.

    A figure that is NaN in a resample, such as the accuracy of a class that was not drawn, is left out of it.

    Args:
        statistic: from row numbers, with repeats, to a fixed number of figures.
        num_images: n; rows are 0 to n - 1.
        groups: one for each image; images of one group are drawn together, as one draw. None: each image by itself.
        strata: rows of several samples, each of which keeps its number of draws; no group is in two. None: one sample.
        num_resamples: how often to draw.
        seed: of the draws.
        confidence: of the intervals.

    Raises:
        ArgumentError: there are no images, or not a group for each.
    """
    if num_images < 1 or (groups is not None and len(groups) != num_images):
        given = "no groups" if groups is None else f"{len(groups)} groups"
        raise ArgumentError(f"{num_images} images with {given}: give one or more images and a group for each, or None")
    samples = [np.arange(num_images)] if strata is None else strata
    members = [_rows_of_groups(rows, groups) for rows in samples]
    generator = np.random.default_rng(seed)
    figures = []
    for _ in range(num_resamples):
        rows = np.concatenate([_draw(sample, generator) for sample in members])
        figures.append(statistic(rows))
    tail = expanded_tail(sum(len(sample) for sample in members), confidence)
    low, high = np.nanquantile(np.asarray(figures, np.float64), [tail, 1 - tail], axis=0)
    return [Interval(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def expanded_tail(num_units: int, confidence: float) -> float:
    """Return the tail probability whose percentile does what Student's t and n - 1 do for a mean.

    Of a sample of few units, plain percentiles are too narrow (Hesterberg 2015, section 5.3).
    """
    if num_units < 2:
        return 0.0
    reach: Any = stats.t.ppf(0.5 + confidence / 2, num_units - 1) * np.sqrt(num_units / (num_units - 1))
    return float(stats.norm.sf(reach))


def _rows_of_groups(
    rows: NDArray[np.int64], groups: Sequence[Hashable] | NDArray[np.str_] | None
) -> list[NDArray[np.int64]] | NDArray[np.int64]:
    """Return what is drawn as one: the rows of each group, or where there are none, the rows themselves."""
    if groups is None:
        return rows
    found: dict[Hashable, list[int]] = {}
    for row in rows.tolist():
        found.setdefault(groups[row], []).append(row)
    return [np.array(numbers, np.int64) for numbers in found.values()]


def _draw(members: list[NDArray[np.int64]] | NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    drawn = generator.integers(0, len(members), len(members))
    return members[drawn] if isinstance(members, np.ndarray) else np.concatenate([members[number] for number in drawn])
