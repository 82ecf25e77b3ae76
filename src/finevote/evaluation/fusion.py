"""Several photographs of one subject: their predictions put together, and what that gains over one of them."""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import softmax

from finevote.errors import ArgumentError, suggest
from finevote.evaluation.figure import Figure, percent, points
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.metrics import Logits, Rates
from finevote.evaluation.paired import Estimate, mean_over_units
from finevote.types import Predictions

METHODS = ("product", "mean")
METHOD = "product"


def joint_logits(logits: Logits) -> Rates:
    """Return logits (..., C) whose softmax, at any temperature, is `fuse` by product of logits (..., m, C).

    Sums of float32 in float64 are exact, so that equal ones stay equal in any order of the photographs.
    """
    return np.asarray(logits.mean(axis=-2, dtype=np.float64))


def fuse(logits: Logits, *, temperature: float = 1.0, method: str = METHOD) -> Rates:
    """Return the probabilities (..., C) that m photographs of one subject amount to, from their logits (..., m, C).

    "product" is the product of experts with the exponent 1/m, normalised: the logarithmic opinion pool (Genest and
    Zidek 1986, section 3.2). A photograph's probabilities are exp(logits / temperature) up to a factor, which
    normalising takes out, so the pool is the softmax of the mean logits over the temperature: the class that is named
    does not depend on the temperature. "mean" is the mean of the probabilities, the linear pool.

    Raises:
        ArgumentError: there is no such method, or no photograph.
    """
    if method not in METHODS:
        raise ArgumentError(f"photographs cannot be put together by {method!r}{suggest(method, METHODS)}")
    if logits.ndim < 2 or not logits.shape[-2]:
        raise ArgumentError(f"got logits {logits.shape}: give (..., m, C), with m >= 1 photographs of a subject")
    if method == "product":
        return np.asarray(softmax(joint_logits(logits) / temperature, axis=-1))
    return np.asarray(softmax(logits.astype(np.float64) / temperature, axis=-1).mean(axis=-2))


class Pool(NamedTuple):
    """How subjects fare when their photographs are put together by `method`: the share named right, and the gain."""

    method: str
    accuracy: Figure
    gain: Estimate


@dataclass(frozen=True)
class Fusion:
    """What several photographs of one subject gain over one of them; a subject counts once, however many it has.

    `num_subjects` have two photographs or more, `photographs_per_subject` on average. `single` is the share of a
    subject's photographs that are named right one by one, on average over subjects. Left out are `num_alone` subjects
    with one photograph, and `num_mixed` whose photographs have different labels.
    """

    num_subjects: int
    photographs_per_subject: float
    single: Estimate
    pools: tuple[Pool, ...]
    num_alone: int = 0
    num_mixed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["single"] = self.single.figure._asdict()
        values["pools"] = [
            {**pool._asdict(), "accuracy": pool.accuracy._asdict(), "gain": pool.gain.figure._asdict()}
            for pool in self.pools
        ]
        return values

    def table(self) -> Table:
        """Return accuracy per subject, one photograph beside all of them, as `rich` prints it."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("of a subject (95%)", overflow="fold")
        for name in ("accuracy", "gain in points"):
            table.add_column(name, justify="right", overflow="fold")
        table.add_row("one photograph alone", percent(self.single.figure), "")
        for pool in self.pools:
            table.add_row(f"all together ({pool.method})", percent(pool.accuracy), points(pool.gain.figure))
        return table

    def notes(self) -> list[str]:
        """Return how many subjects there are, and which are left out."""
        counted = f"{self.num_subjects:,} subjects have {self.photographs_per_subject:.1f} photographs on average"
        notes = [f"{counted}; `finevote predict --together` names a subject by the {METHOD} of what each says"]
        if self.num_alone:
            notes.append(f"subjects with one photograph, left out of that: {self.num_alone:,}")
        if self.num_mixed:
            notes.append(f"subjects whose photographs have different labels, left out of that: {self.num_mixed:,}")
        return notes


def measure_fusion(predictions: Predictions, *, temperature: float = 1.0) -> Fusion | None:
    """Return what putting photographs together gains on a split; None unless a subject has several of one label.

    Args:
        predictions: of the split.
        temperature: that calibrates the logits.
    """
    if predictions.groups is None:
        return None
    order, starts, sizes = _subjects(predictions.groups)
    labels, logits = predictions.labels[order], predictions.logits[order]
    is_alone = sizes == 1
    is_mixed = np.minimum.reduceat(labels, starts) != np.maximum.reduceat(labels, starts)
    counts = ~(is_alone | is_mixed)
    if not counts.any():
        return None
    is_right = (logits.argmax(axis=1) == labels).astype(np.float64)
    single = (np.add.reduceat(is_right, starts) / sizes)[counts]
    pools = []
    for method in METHODS:
        pooled = _pool_subjects(logits, starts, sizes, temperature=temperature, method=method)
        fused = (pooled.argmax(axis=1) == labels[starts])[counts]
        gain = mean_over_units(fused - single, ends=(-1.0, 1.0), seed=0)
        interval = wilson_interval(int(fused.sum()), len(fused))
        pools.append(Pool(method, Figure(float(fused.mean()), *interval), gain))
    return Fusion(
        num_subjects=int(counts.sum()),
        photographs_per_subject=float(sizes[counts].mean()),
        single=mean_over_units(single, ends=(0.0, 1.0), seed=0),
        pools=tuple(pools),
        num_alone=int(is_alone.sum()),
        num_mixed=int(is_mixed.sum()),
    )


def _subjects(groups: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return rows in the order of their subjects, where each of these starts among them, and its number of rows."""
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.argsort(numbers, kind="stable"), np.cumsum(sizes) - sizes, sizes


def _pool_subjects(
    logits: Logits, starts: NDArray[np.int64], sizes: NDArray[np.int64], *, temperature: float, method: str
) -> Rates:
    """Return scores (subjects, C) that rank classes as `fuse` does, from rows (n, C) in the order of subjects."""
    wide = logits.astype(np.float64)
    values = wide if method == "product" else softmax(wide / temperature, axis=1)
    return np.asarray(np.add.reduceat(values, starts, axis=0) / sizes[:, None])
