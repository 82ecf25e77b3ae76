"""Contenders timed in turn within every round, so that a change in the machine's speed meets all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from finevote.bench.failure import describe_failure


class Timed(NamedTuple):
    """Seconds of every round by name, and why those that failed did."""

    seconds: dict[str, list[float]]
    failures: dict[str, str]


class Spread(NamedTuple):
    """The median over the rounds, with the lower and the upper quartile."""

    value: float
    low: float
    high: float


def time_in_turn(
    actions: Mapping[str, Callable[[], object]],
    *,
    num_rounds: int,
    num_warmup_rounds: int = 1,
    synchronise: Callable[[], None] = lambda: None,
) -> Timed:
    """Run all actions in every round, each round starting with another one; one that fails takes no further part."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    failures: dict[str, str] = {}
    for number in range(num_warmup_rounds + num_rounds):
        for name in _rotate(list(actions), number):
            if name in failures:
                continue
            try:
                synchronise()
                start = time.perf_counter()
                actions[name]()
                synchronise()
            except Exception as error:  # noqa: BLE001  (whatever it is, it is this contender's and is reported)
                failures[name] = describe_failure(error)
                del seconds[name]
                gc.collect()
                continue
            if number >= num_warmup_rounds:
                seconds[name].append(time.perf_counter() - start)
    return Timed(seconds, failures)


def spread_of(values: Sequence[float]) -> Spread:
    """Return the median of the values and their quartiles."""
    return Spread(statistics.median(values), *_quartiles(values))


def ratio_of(values: Sequence[float], others: Sequence[float]) -> Spread:
    """Return the median and the quartiles of the ratios round by round.

    Not the ratio of medians: where the machine's speed drifts, those may come from different rounds.
    """
    return spread_of([value / other for value, other in zip(values, others, strict=True)])


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _rotate(names: list[str], by: int) -> list[str]:
    start = by % len(names) if names else 0
    return names[start:] + names[:start]
