"""The interval of a calibration error, which is found too large where images are few."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.calibration import NUM_BINS, Bins, bin_numbers
from finevote.evaluation.intervals import Interval
from finevote.evaluation.metrics import Rates

NUM_RESAMPLES = 1000
_SCALES = np.array([*np.linspace(0, 2, 13), 2.5, 3, 4, 6, 9, 14, 20])  # of the gaps that were found
_ROUNDING = 1e-12
_RARE = 1 / 6  # of what perfect probabilities show: one standard deviation below the middle


class ErrorEstimate(NamedTuple):
    """What was found of a calibration error; `expected_at_zero` is what perfect probabilities would show on average."""

    interval: Interval
    expected_at_zero: float


def calibration_error_interval(
    confidences: Rates,
    is_right: NDArray[np.bool_],
    *,
    bins: Bins = "width",
    num_bins: int = NUM_BINS,
    groups: Sequence[Hashable] | NDArray[np.str_] | None = None,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> ErrorEstimate:
    """Return which calibration errors agree with the one that is found, T (`calibration_error`).

    T is a sum of absolute values and so is above the truth, at perfect probabilities most of all; resampled images
    show that excess a second time, and no interval of their quantiles covers. Instead a test is inverted. Truths are
    tried that differ from the confidences by the gaps found in the bins, without what chance adds to their differences,
    times a scale from 0 up, in the same and in the opposite direction. For each, whether images are right is drawn
    anew, and the truth is kept if T lies between the outer quantiles of what is then found. The interval goes from the
    least to the largest error of those kept; it holds 0 where perfect probabilities could well have shown T. Where T is
    less than what these show five times in six, the upper end is that of what they do: otherwise luck alone would make
    the interval a point (power-constrained limits, Cowan et al. 2011).

    A gap counts n_b / (n_b + 1) of itself in a bin of n_b images, one of the model's own expectation being added, so
    that a bin without a mistake is not taken for one in which there can be none. Groups lessen the number of images
    that are drawn, by their design effect on the residuals.

    Args:
        confidences: (n,) probabilities of the predicted classes.
        is_right: (n,).
        bins: as of `calibration_error`.
        num_bins: how many.
        groups: (n,) whom each image shows; None where each stands by itself.
        num_resamples: how often images are drawn for each truth.
        seed: of the draws.
        confidence: of the interval.

    Raises:
        ArgumentError: there are no images, or not a group for each.
    """
    if not len(is_right) or (groups is not None and len(groups) != len(is_right)):
        given = "no groups" if groups is None else f"{len(groups)} groups"
        raise ArgumentError(f"{len(is_right)} images with {given}: give one or more, and a group for each, or None")
    _, numbers, counts = np.unique(
        bin_numbers(confidences, bins=bins, num_bins=num_bins), return_inverse=True, return_counts=True
    )
    weights = counts / len(is_right)  # (K,)
    sure = np.bincount(numbers, weights=confidences) / counts
    gaps = np.bincount(numbers, weights=is_right - confidences) / counts
    found = float(weights @ np.abs(gaps))
    num_images = _effective_number(is_right - confidences - gaps[numbers], groups)

    scales = np.concatenate([_SCALES, -_SCALES])[:, None] * _direction(gaps, sure, counts)  # (S, K)
    truths = np.clip(sure + scales, 0, 1)
    errors = np.abs(truths - sure) @ weights
    generator = np.random.default_rng(seed)
    if bins == "width":
        drawn = generator.multinomial(num_images, weights, (len(truths), num_resamples))
    else:
        drawn = np.broadcast_to(
            np.maximum(np.round(num_images * weights), 1).astype(np.int64), (len(truths), num_resamples, len(weights))
        )
    right = generator.binomial(drawn, truths[:, None, :])
    shown = np.abs(right - drawn * sure).sum(axis=2) / drawn.sum(axis=2)  # (S, resamples)
    tail = (1 - confidence) / 2
    lows, highs = np.quantile(shown, [tail, 1 - tail], axis=1)
    halves = np.split(np.arange(len(errors)), 2)
    usual = max(found, float(np.quantile(shown[0], _RARE)))
    ends = [_kept(errors[half], lows[half], highs[half], found, usual) for half in halves]
    interval = Interval(min(low for low, _ in ends), max(high for _, high in ends))
    return ErrorEstimate(interval, float(shown[0].mean()))


def _direction(gaps: Rates, sure: Rates, counts: NDArray[np.int64]) -> Rates:
    """Return gaps (K,) without what chance adds to their differences, scaled to the same mean absolute value.

    Each is drawn to their mean by its sampling variance beside the variance between bins (DerSimonian and Laird 1986).
    They are at least a quarter of a standard error on average, so that multiples of them reach what chance can hide.
    """
    smooth = gaps * counts / (counts + 1)
    mean = float(smooth @ counts / counts.sum())
    rates = (sure * counts + 0.5) / (counts + 1)
    precisions = counts / (rates * (1 - rates))
    excess = float(precisions @ (gaps - mean) ** 2) - (len(gaps) - 1)
    between = max(excess, 0.0) / float(precisions.sum() - (precisions**2).sum() / precisions.sum() + 1e-300)
    drawn = mean + (smooth - mean) * between / (between + 1 / precisions)
    least = 0.25 / np.sqrt(precisions)
    size, wanted = float(np.abs(drawn) @ counts), max(float(np.abs(smooth) @ counts), float(least @ counts))
    return np.asarray(drawn * (wanted / size) if size > _ROUNDING else least)


def _kept(errors: Rates, lows: Rates, highs: Rates, found: float, usual: float) -> Interval:
    """Return between which errors, of truths in order of their scale, one shows `found` or more, or `usual` or less."""
    lows, highs = np.maximum.accumulate(lows), np.maximum.accumulate(highs)
    first = int(np.searchsorted(highs, found - _ROUNDING))  # the first truth that can show so much
    last = int(np.searchsorted(lows, usual + _ROUNDING, side="right")) - 1  # the last that can show so little
    low = errors[-1] if first == len(errors) else _between(errors, highs, first - 1, found)
    high = errors[0] if last < 0 else _between(errors, lows, last, usual)
    return Interval(min(low, high), max(low, high))


def _between(errors: Rates, shown: Rates, left: int, found: float) -> float:
    """Return the error where what is shown reaches `found`, on the line from truth number `left` to the next."""
    if left < 0 or left + 1 == len(errors):
        return float(errors[max(left, 0)])
    return float(np.interp(found, shown[left : left + 2], errors[left : left + 2]))


def _effective_number(residuals: Rates, groups: Sequence[Hashable] | NDArray[np.str_] | None) -> int:
    """Return how many images by themselves vary as much as these do by groups; at most their number."""
    if groups is None or not residuals.any():
        return len(residuals) if groups is None else len(set(groups))
    _, members = np.unique(np.asarray(groups, np.str_), return_inverse=True)
    num_groups = int(members.max()) + 1
    together = float((np.bincount(members, weights=residuals) ** 2).sum()) * num_groups / max(num_groups - 1, 1)
    design_effect: float = max(together / float((residuals**2).sum()), 1.0)
    return max(round(len(residuals) / design_effect), 1)
