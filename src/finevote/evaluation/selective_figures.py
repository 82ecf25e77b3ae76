"""What is gained by answering only where the model is sure: the risk-coverage curve of a split, and kept promises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.evaluation.calibration import confidences_of
from finevote.evaluation.calibrator import Calibration, Judges, told_probabilities
from finevote.evaluation.figure import Figure, number, percent, share_of, with_intervals
from finevote.evaluation.metrics import Rates
from finevote.evaluation.rows import take_rows
from finevote.evaluation.selective import excess_area, fewest_images, promise_error, risk_area, risk_curve
from finevote.types import Predictions

MAX_ERRORS = (0.01, 0.02, 0.05)
SHARES = (0.5, 0.8, 0.9)
_NUM_POINTS = 100


class RiskPoint(NamedTuple):
    """Among the share `coverage` of images that are surest, the share `risk` is named wrong."""

    coverage: float
    risk: float


class KeptPromise(NamedTuple):
    """What became of a promised `max_error`: the share of images answered, and the error among these.

    Both are None where validation images cannot promise it; the error is where nothing is answered.
    """

    max_error: float
    answered: Figure | None
    error: Figure | None


@dataclass(frozen=True)
class Selective:
    """The figures of one split.

    `area` is that under the risk-coverage curve, `excess` its distance to the same answers in the best order.
    `risk_of_surest` is the risk among each of `SHARES`; `curve` has up to 100 points. `num_calibrating` images, one of
    each subject, gave the promises, 0 without calibration; `is_across` tells that the split is theirs, each fifth
    judged by the other four.
    """

    area: Figure
    excess: Figure
    risk_of_surest: tuple[Figure, ...]
    curve: tuple[RiskPoint, ...]
    promises: tuple[KeptPromise, ...]
    num_calibrating: int
    is_across: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        return {
            "area": self.area._asdict(),
            "excess": self.excess._asdict(),
            "risk_of_surest": [
                {"coverage": share, **risk._asdict()} for share, risk in zip(SHARES, self.risk_of_surest, strict=True)
            ],
            "curve": [point._asdict() for point in self.curve],
            "promises": [
                {
                    "max_error": row.max_error,
                    "answered": row.answered and row.answered._asdict(),
                    "error": row.error and row.error._asdict(),
                }
                for row in self.promises
            ],
            "num_calibrating": self.num_calibrating,
            "is_across": self.is_across,
        }

    def table(self) -> Table:
        """Return the figures as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("answering where it is sure (95%)", overflow="fold")
        table.add_column("", justify="right", overflow="fold")
        for share, risk in zip(SHARES, self.risk_of_surest, strict=True):
            table.add_row(f"error among the surest {share:.0%}", percent(risk))
        table.add_row("area under risk over coverage", number(self.area, digits=4))
        table.add_row("    above that of the best order", number(self.excess, digits=4))
        for row in self.promises:
            if row.answered is not None:
                table.add_row(f"error of {row.max_error:.0%} promised: answered", percent(row.answered))
                table.add_row("    error among these", "" if row.error is None else percent(row.error))
        return table

    def notes(self) -> list[str]:
        """Return which errors cannot be promised."""
        open_ones = [f"{row.max_error:.0%}" for row in self.promises if row.answered is None]
        if not open_ones:
            return []
        fewest = fewest_images(min(row.max_error for row in self.promises if row.answered is None))
        note = (
            f"{self.num_calibrating:,} validation images, one of each subject, cannot promise an error of "
            f"{' or '.join(open_ones)} at any confidence: the lowest takes {fewest:,} or more above a threshold, and "
            "hardly a mistake among them"
        )
        return [note]


def measure_selective(predictions: Predictions, judges: Judges | None) -> Selective:
    """Return the figures of a split.

    Args:
        predictions: of the split; where they have groups, intervals draw whole ones.
        judges: by what validation told; None where the model is not calibrated.
    """
    probabilities = told_probabilities(predictions.logits, judges and judges.calibration)
    confidences, is_right = confidences_of(probabilities, predictions.labels)
    area, excess = _areas(confidences, is_right, predictions)
    return Selective(
        area=area,
        excess=excess,
        risk_of_surest=tuple(_risks_of_surest(confidences, is_right, predictions)),
        curve=thin_curve(risk_curve(confidences, is_right)),
        promises=() if judges is None else tuple(_keep(predictions, judges)),
        num_calibrating=0 if judges is None else len(judges.calibration.labels),
        is_across=judges is not None and judges.is_across,
    )


def thin_curve(risks: Rates) -> tuple[RiskPoint, ...]:
    """Return up to 100 points of a risk curve (n,), evenly over the coverage, with its end."""
    num_images = len(risks)
    ends = np.unique(np.ceil(np.linspace(0, num_images, min(_NUM_POINTS, num_images) + 1)[1:]).astype(int))
    return tuple(RiskPoint(float(end / num_images), float(risks[end - 1])) for end in ends)


def _areas(confidences: Rates, is_right: NDArray[np.bool_], predictions: Predictions) -> list[Figure]:
    """Return the area under the curve, and its excess over that of the best order."""

    def statistic(rows: NDArray[np.int64]) -> Sequence[float]:
        sure, right = confidences[rows], is_right[rows]
        return [risk_area(sure, right), excess_area(sure, right)]

    return with_intervals(statistic, predictions)


def _risks_of_surest(confidences: Rates, is_right: NDArray[np.bool_], predictions: Predictions) -> list[Figure]:
    """Return the risk among each of `SHARES`, with the interval of an accuracy: mistakes may be none or few."""
    order = np.argsort(-confidences, kind="stable")
    parts = [order[: max(round(share * len(order)), 1)] for share in SHARES]
    return [share_of(~is_right[rows], take_rows(predictions, rows)) for rows in parts]


def _keep(predictions: Predictions, judges: Judges) -> list[KeptPromise]:
    """Return what becomes of each of `MAX_ERRORS`; nothing where the bundle does not know what was named right."""
    if judges.calibration.confidences is None:
        return []
    is_right = predictions.logits.argmax(axis=1) == predictions.labels
    kept = []
    for max_error in MAX_ERRORS:
        if _promise(judges.calibration, max_error) is None:
            kept.append(KeptPromise(max_error, None, None))
            continue
        answered = np.zeros(len(is_right), np.bool_)
        for rows, judge in judges.parts:
            threshold = _promise(judge, max_error)
            sure = judge.confidences_of(predictions.logits[rows])
            answered[rows] = False if threshold is None else sure > threshold
        some = np.flatnonzero(answered)
        error = share_of(~is_right[some], take_rows(predictions, some)) if len(some) else None
        kept.append(KeptPromise(max_error, share_of(answered, predictions), error))
    return kept


def _promise(calibration: Calibration, max_error: float) -> float | None:
    """Return the confidence above which the error is promised; None if it is not."""
    if calibration.confidences is None or calibration.is_right is None:
        return None
    promise = promise_error(calibration.confidences, calibration.is_right, max_error=max_error)
    return None if promise is None else promise.threshold
