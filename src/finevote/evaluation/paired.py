"""Two classifiers on the same images: is one better? Exact test, bootstraps by image or subject, gains and losses.

`right` arrays are boolean, one entry an image, in the same order for both. A difference is second minus first, so it is
positive where the second is better.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finevote.errors import ArgumentError
from finevote.evaluation.bootstrap import expanded_tail
from finevote.evaluation.figure import Figure
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.shares import Groups

NUM_DRAWS = 10_000
_DRAWS_AT_ONCE = 500  # bounds the memory of resampling
Values = NDArray[np.float64]


class PairedTest(NamedTuple):
    """How many images only the first, and only the second, names right, and the two-sided p-value of that."""

    only_first: int
    only_second: int
    p_value: float


class Estimate(NamedTuple):
    """A mean with its interval; `num_units` are the images, or the subjects that they were resampled by."""

    value: float
    low: float
    high: float
    num_units: int

    @property
    def figure(self) -> Figure:
        """The mean and its interval by themselves."""
        return Figure(self.value, self.low, self.high)


class SeedEstimate(NamedTuple):
    """A mean over seeds and images with its interval, and the two-sided p-value of its being 0.

    `seed_sd` is the standard deviation between seeds, of the one or the larger of two sets; None with one seed each,
    and then the interval is of the images alone.
    """

    value: float
    low: float
    high: float
    p_value: float
    seed_sd: float | None


class ClassChange(NamedTuple):
    """How the `num_images` images of a class fared: gained by the second, lost to it; p-value after Holm."""

    label: int
    num_images: int
    gained: int
    lost: int
    p_value: float


def paired_test(first: ArrayLike, second: ArrayLike, *, groups: Groups | None = None) -> PairedTest:
    """Return the exact test that two classifiers are equally often right, of images or of whole groups.

    If they are, what a unit says for one of them it might as well have said for the other: all signs of the units' sums
    d_u of differences are equally likely, and p = P(|sum_u +-d_u| >= |sum_u d_u|). Of images by themselves that is
    McNemar's exact test (1947); of many groups it comes to Obuchowski's (1998), sum(d_u)^2 / sum(d_u^2) against
    chi-squared.

    Raises:
        ArgumentError: the arrays are not both (n,) booleans, with n >= 1, or there is not a group for each.
    """
    one, other = _as_right(first, second)
    patterns, counts = _units((other.astype(np.float64) - one)[None], groups)
    p_value = _flip_signs(patterns[0].astype(np.int64), counts.astype(np.int64))
    return PairedTest(int((one & ~other).sum()), int((other & ~one).sum()), p_value)


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    seed: int,
    groups: Groups | None = None,
    labels: ArrayLike | None = None,
    num_draws: int = NUM_DRAWS,
    confidence: float = 0.95,
) -> Estimate:
    """Return the difference of two accuracies with its bootstrap interval, images or whole groups drawn together.

    With `labels` (n,) it is that of macro accuracies: images weigh as much as makes the classes alike.

    Half a unit that the first wins and half a one that the second does are added to those drawn from (after Bonett and
    Price 2012), and percentiles are expanded for the number of units (Hesterberg 2015, section 5.3): plain ones are
    too narrow where few units differ, and a point where none does.

    Raises:
        ArgumentError: the arrays or the groups do not fit together, or `confidence` is out of range.
    """
    _check_confidence(confidence)
    one, other = _as_right(first, second)
    weights = np.ones(len(one)) if labels is None else _class_weights(labels, num_images=len(one))
    patterns, counts = _units((weights * (other.astype(np.float64) - one))[None], groups, weights=weights)
    value = float((weights * other).mean() - (weights * one).mean())
    return _estimate(value, patterns, counts, ends=(-1.0, 1.0), seed=seed, num_draws=num_draws, confidence=confidence)


def mean_over_units(
    values: ArrayLike, *, ends: tuple[float, float], seed: int, num_draws: int = NUM_DRAWS, confidence: float = 0.95
) -> Estimate:
    """Return the mean of one value a unit, (n,), with its bootstrap interval, made as `paired_bootstrap` makes it.

    `ends` are the least and the largest value that a unit can have.

    Raises:
        ArgumentError: there are no values, one lies beyond `ends`, or `confidence` is out of range.
    """
    _check_confidence(confidence)
    row = np.asarray(values, np.float64)
    if row.ndim != 1 or not len(row) or not (ends[0] <= row).all() or not (row <= ends[1]).all():
        raise ArgumentError(
            f"got values {row.shape}: give one for each of n >= 1 units, from {ends[0]:g} to {ends[1]:g}"
        )
    patterns, counts = _units(row[None], None)
    return _estimate(
        float(row.mean()), patterns, counts, ends=ends, seed=seed, num_draws=num_draws, confidence=confidence
    )


def hierarchical_bootstrap(
    first: ArrayLike,
    second: ArrayLike | None = None,
    *,
    seed: int,
    groups: Groups | None = None,
    num_draws: int = NUM_DRAWS,
    confidence: float = 0.95,
) -> SeedEstimate:
    """Return mean accuracy over seeds and images, or the difference of two such means, both levels drawn anew.

    Each draw takes seeds of either set, and images (or whole groups) that both sets share. With a handful of seeds the
    draws are too narrow in two ways, which are mended: deviations of seeds are widened by sqrt(S / (S - 1)) (Davison
    and Hinkley 1997, section 3.8), and the interval is the bootstrap's standard error times Student's t, with degrees
    of freedom after Satterthwaite from the variances of seeds and images.

    Args:
        first: (S, n) booleans, a row for each seed.
        second: (S', n) for the same images; None to look at `first` alone.
        seed: of the draws.
        groups: subject of each image; None where every one is by itself.
        num_draws: how often to draw.
        confidence: of the interval.

    Raises:
        ArgumentError: the arrays or the groups do not fit together, or `confidence` is out of range.
    """
    _check_confidence(confidence)
    sets = [_as_rows(first)] if second is None else [_as_rows(second), _as_rows(first)]
    if len({rows.shape[1] for rows in sets}) > 1:
        raise ArgumentError(f"sets of {' and '.join(str(rows.shape[1]) for rows in sets)} images: give the same images")
    signs = (1.0, -1.0)[: len(sets)]
    value = float(sum(sign * rows.mean() for sign, rows in zip(signs, sets, strict=True)))
    patterns, counts = _units(np.concatenate(sets), groups)
    generator = np.random.default_rng(seed)
    means = np.concatenate(
        [
            _draw_means(draw @ patterns.T, [len(rows) for rows in sets], generator)
            for draw in _draw_counts(counts, num_draws, generator)
        ]
    )
    error = float(means.std(ddof=1))
    freedom = _degrees_of_freedom(sets, signs, num_units=int(counts.sum()))
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(value) / error, freedom)) if error else float(value == 0)
    if not error:  # every image and seed alike: as far as the Wilson bound of the share of units that are not
        reach = wilson_interval(0, int(counts.sum()), confidence=confidence).high
    return SeedEstimate(value, value - reach, value + reach, p_value, _seed_sd(sets))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return [float(value) for value in adjusted[np.argsort(order, kind="stable")]]


def class_changes(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, *, groups: Groups | None = None
) -> list[ClassChange]:
    """Return, for every class with images, what the second gains and loses; p-values are Holm's over these classes.

    Raises:
        ArgumentError: the arrays do not fit together.
    """
    one, other = _as_right(first, second)
    numbers = _as_labels(labels, num_images=len(one))
    names = None if groups is None else np.asarray(groups)
    rows = []
    for label in np.unique(numbers):
        mine = np.flatnonzero(numbers == label)
        lost, gained, p_value = paired_test(one[mine], other[mine], groups=None if names is None else names[mine])
        rows.append(ClassChange(int(label), len(mine), gained, lost, p_value))
    adjusted = holm([row.p_value for row in rows])
    return [row._replace(p_value=p_value) for row, p_value in zip(rows, adjusted, strict=True)]


def _as_right(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape or one.ndim != 1 or not len(one) or one.dtype != bool or other.dtype != bool:
        raise ArgumentError(
            f"got {one.shape} {one.dtype} and {other.shape} {other.dtype}: give whether each image is named right, "
            "two rows of n >= 1 booleans for the same images"
        )
    return one, other


def _as_rows(right: ArrayLike) -> Values:
    rows = np.asarray(right)
    if rows.ndim != 2 or not rows.size or rows.dtype != bool:
        raise ArgumentError(f"got {rows.shape} {rows.dtype}: give (seeds, images) booleans, at least one of each")
    return rows.astype(np.float64)


def _as_labels(labels: ArrayLike, *, num_images: int) -> NDArray[np.integer]:
    numbers = np.asarray(labels)
    if numbers.shape != (num_images,):
        raise ArgumentError(f"labels {numbers.shape} must be one for each of {num_images} images")
    return numbers


def _class_weights(labels: ArrayLike, *, num_images: int) -> Values:
    """Return weights of images (n,), 1 on average, by which every class weighs alike."""
    _, classes, sizes = np.unique(_as_labels(labels, num_images=num_images), return_inverse=True, return_counts=True)
    return np.asarray(num_images / (len(sizes) * sizes[classes]))


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence={confidence} must lie between 0 and 1, e.g. 0.95")


def _units(rows: Values, groups: Groups | None, *, weights: Values | None = None) -> tuple[Values, Values]:
    """Return (rows + 1, U): sums over each kind of unit, the weights of its images last, and (U,) how many there are.

    Units with equal sums are one kind: drawing kinds by their frequency is drawing units, at a fraction of the work.
    """
    num_images = rows.shape[1]
    table = np.concatenate([rows, (np.ones(num_images) if weights is None else weights)[None]])
    if groups is not None:
        if len(groups) != num_images:
            raise ArgumentError(f"{len(groups)} groups for {num_images} images: give one for each")
        names, members = np.unique(np.asarray(groups, np.str_), return_inverse=True)
        table = np.stack([np.bincount(members, weights=row, minlength=len(names)) for row in table])
    patterns, counts = np.unique(table, axis=1, return_counts=True)
    return patterns, counts.astype(np.float64)


def _flip_signs(sums: NDArray[np.int64], counts: NDArray[np.int64]) -> float:
    """Return P(|sum of c_k sums s_k with random signs| >= |sum_k c_k s_k|), from the s_k and how often each comes, c_k.

    The signs are not drawn: the distribution of the total of those with a plus, from 0 to T = sum_k c_k |s_k|, is the
    convolution of one binomial for each size, and the signed sum is twice it minus T.
    """
    chances = np.ones(1)
    for size in np.unique(np.abs(sums[sums != 0])):
        count = int(counts[np.abs(sums) == size].sum())
        pluses = np.zeros(size * count + 1)
        pluses[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, pluses)
    signed = 2 * np.arange(len(chances)) - (len(chances) - 1)
    return min(float(chances[np.abs(signed) >= abs(sums @ counts)].sum()), 1.0)


def _estimate(
    value: float,
    patterns: Values,
    counts: Values,
    *,
    ends: tuple[float, float],
    seed: int,
    num_draws: int,
    confidence: float,
) -> Estimate:
    """Return a mean per image, `value`, with its interval; `patterns` and `counts` are as `_units` gives them.

    `ends` bound what one image can add; half a unit of either is drawn from too.
    """
    num_units = int(counts.sum())
    size = float(patterns[1] @ counts) / num_units
    patterns = np.concatenate([patterns, [[size * ends[1], size * ends[0]], [size, size]]], axis=1)
    counts = np.append(counts, [0.5, 0.5])
    sums = [draw @ patterns.T for draw in _draw_counts(counts, num_draws, np.random.default_rng(seed))]
    means = np.concatenate([sum_[:, 0] / sum_[:, 1] for sum_ in sums])
    tail = expanded_tail(num_units, confidence)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value), num_units)


def _draw_counts(counts: Values, num_draws: int, generator: np.random.Generator) -> list[Values]:
    """Return batches of draws (draws, U): how often each kind of unit comes when as many units are drawn anew."""
    num_units, sizes = round(counts.sum()), [_DRAWS_AT_ONCE] * (num_draws // _DRAWS_AT_ONCE)
    sizes += [num_draws % _DRAWS_AT_ONCE] if num_draws % _DRAWS_AT_ONCE else []
    return [generator.multinomial(num_units, counts / counts.sum(), size).astype(np.float64) for size in sizes]


def _draw_means(sums: Values, num_seeds: Sequence[int], generator: np.random.Generator) -> Values:
    """Return a mean (draws,), or a difference of two, with seeds drawn anew: `sums` (draws, seeds + 1), sizes last."""
    rates = sums[:, :-1] / sums[:, -1:]
    sets = np.split(rates, np.cumsum(num_seeds)[:-1], axis=1)
    means = []
    for rows in sets:
        count = rows.shape[1]
        whole = rows.mean(axis=1, keepdims=True)
        wider = whole + (rows - whole) * np.sqrt(count / max(count - 1, 1))
        drawn = generator.integers(count, size=rows.shape)
        means.append(np.take_along_axis(wider, drawn, axis=1).mean(axis=1))
    return np.asarray(means[0] if len(means) == 1 else means[0] - means[1])


def _degrees_of_freedom(sets: Sequence[Values], signs: Sequence[float], *, num_units: int) -> float:
    """Return Satterthwaite's, from the variance between images and that between the seeds of each set."""
    per_image = sum(sign * rows.mean(axis=0) for sign, rows in zip(signs, sets, strict=True))
    terms = [(float(np.var(per_image, ddof=1)) / num_units if num_units > 1 else 0.0, max(num_units - 1, 1))]
    terms += [(float(rows.mean(axis=1).var(ddof=1)) / len(rows), len(rows) - 1) for rows in sets if len(rows) > 1]
    weight = sum(variance**2 / freedom for variance, freedom in terms)
    return float(sum(variance for variance, _ in terms)) ** 2 / weight if weight else float(max(num_units - 1, 1))


def _seed_sd(sets: Sequence[Values]) -> float | None:
    spreads = [float(rows.mean(axis=1).std(ddof=1)) for rows in sets if len(rows) > 1]
    return max(spreads, default=None)
