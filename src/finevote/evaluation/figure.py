"""A figure of merit with its 95% interval: found from predictions, and written for people."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.evaluation.bootstrap import bootstrap_intervals
from finevote.evaluation.shares import share
from finevote.types import Predictions


class Figure(NamedTuple):
    """A figure with the ends of its 95% interval."""

    value: float
    low: float
    high: float


def with_intervals(statistic: Callable[[NDArray[np.int64]], Sequence[float]], predictions: Predictions) -> list[Figure]:
    """Return the figures that `statistic` gives of row numbers, with bootstrap intervals; groups are drawn whole."""
    num_images = len(predictions.labels)
    values = statistic(np.arange(num_images))
    intervals = bootstrap_intervals(statistic, num_images, groups=predictions.groups)
    return [Figure(float(value), *interval) for value, interval in zip(values, intervals, strict=True)]


def share_of(is_so: NDArray[np.bool_], predictions: Predictions) -> Figure:
    """Return the share of images of which something is so, (n,), with the interval of an accuracy."""
    return Figure(*share(is_so, groups=predictions.groups)[:3])


def percent(figure: Figure) -> str:
    """Return a share in percent with its interval."""
    return f"{figure.value:.1%} ({figure.low * 100:.1f} to {figure.high * 100:.1f}%)"


def points(figure: Figure) -> str:
    """Return a difference in percentage points with its interval."""
    return f"{figure.value * 100:+.1f} ({figure.low * 100:+.1f} to {figure.high * 100:+.1f})"


def number(figure: Figure, *, digits: int) -> str:
    """Return a number with its interval."""
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
