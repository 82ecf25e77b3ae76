"""Answering only where one is sure: what is gained by leaving images unanswered, and a bound on the error that is left.

Pure functions of confidences (n,) and whether each image is named right (n,). Risk is the share of wrong answers.
"""

from math import ceil, inf, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from finevote.errors import ArgumentError
from finevote.evaluation.metrics import Rates

CONFIDENCE = 0.95
_STEP = 1.25  # between the numbers of images that are tried


class Promise(NamedTuple):
    """Images with a confidence above `threshold` are answered; of the calibrating ones these are `share`."""

    threshold: float
    share: float


def risk_curve(confidences: Rates, is_right: NDArray[np.bool_]) -> Rates:
    """Return the risk among the k surest images, for k = 1 to n (n,) (El-Yaniv and Wiener 2010).

    Images that are equally sure count as one block with its errors spread evenly, so their order does not matter.
    """
    order = np.argsort(-confidences, kind="stable")
    _, blocks, sizes = np.unique(-confidences[order], return_inverse=True, return_counts=True)
    wrong = np.bincount(blocks, weights=~is_right[order]) / sizes
    return np.asarray(np.cumsum(wrong[blocks]) / np.arange(1, len(order) + 1))


def risk_area(confidences: Rates, is_right: NDArray[np.bool_]) -> float:
    """Return the mean of the risk curve, the area under it: 0 is best (Geifman, Uziel and El-Yaniv 2019, AURC)."""
    return float(risk_curve(confidences, is_right).mean())


def excess_area(confidences: Rates, is_right: NDArray[np.bool_]) -> float:
    """Return by how much the area exceeds that of the same answers with every wrong one at the end (E-AURC)."""
    return risk_area(confidences, is_right) - risk_area(is_right.astype(np.float64), is_right)


def promise_error(
    confidences: Rates, is_right: NDArray[np.bool_], *, max_error: float, confidence: float = CONFIDENCE
) -> Promise | None:
    """Return the lowest threshold above which the error is at most `max_error`; None if none can be promised.

    With probability `confidence` over the n calibrating images, if these and new ones are drawn alike and
    independently, the probability of a wrong answer among new images above the threshold is at most `max_error`. Images
    of one subject are not independent: give one of each.

    The threshold is tried between the k-th and the next surest image for J numbers k = n, n / 1.25, n / 1.25^2, ...,
    which depend on n and the two rates alone. Given the confidence of the next one, those above it are a sample of what
    lies above, so their errors are binomial, and P(X <= errors) at `max_error` is an exact p-value (Clopper and Pearson
    1934); each is tested at (1 - `confidence`) / J (Geifman and El-Yaniv 2017, with a fixed list in place of a search).

    Raises:
        ArgumentError: a rate is not between 0 and 1.
    """
    for name, rate in (("max_error", max_error), ("confidence", confidence)):
        if not 0 < rate < 1:
            raise ArgumentError(
                f"{name}={rate:g} must lie between 0 and 1, e.g. {0.05 if name == 'max_error' else 0.95}"
            )
    numbers = _numbers_to_try(len(confidences), max_error=max_error, confidence=confidence)
    order = np.argsort(-confidences, kind="stable")
    ordered, wrong = confidences[order], ~is_right[order]
    for number in numbers:
        threshold = -inf if number == len(ordered) else float(ordered[number])
        answered = ordered > threshold
        p_value = binom.cdf(int(wrong[answered].sum()), int(answered.sum()), max_error)
        if answered.any() and p_value <= (1 - confidence) / len(numbers):
            return Promise(threshold, float(answered.mean()))
    return None


def fewest_images(max_error: float, *, confidence: float = CONFIDENCE, num_tries: int = 1) -> int:
    """Return how many images, all named right, promise an error of at most `max_error` in (0, 1)."""
    return ceil(round(log((1 - confidence) / num_tries) / log(1 - max_error), 9))


def _numbers_to_try(num_images: int, *, max_error: float, confidence: float) -> list[int]:
    """Return as many of n, n / 1.25, n / 1.25^2, ... as can each be promised if all were right; n alone at worst."""
    numbers = [num_images]
    while True:
        smaller = int(num_images / _STEP ** len(numbers))
        if smaller < fewest_images(max_error, confidence=confidence, num_tries=len(numbers) + 1):
            return numbers
        numbers.append(smaller)
