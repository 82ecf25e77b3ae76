"""How well images of none of the classes are told: false alarms on a split, and what is found of unknown images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.evaluation.bootstrap import bootstrap_intervals
from finevote.evaluation.calibrator import Calibration, Judges
from finevote.evaluation.figure import Figure, number, percent, share_of
from finevote.evaluation.intervals import area_interval
from finevote.evaluation.metrics import Rates
from finevote.evaluation.shares import Groups, share
from finevote.evaluation.unknown import (
    METHODS,
    alarm_threshold,
    auroc,
    false_positive_rate,
    fewest_images,
    pass_threshold,
)
from finevote.types import Predictions

FALSE_ALARMS = 0.05
RECALL = 0.95


class ScoreFigures(NamedTuple):
    """How one score fared.

    `false_alarms` is None where there are too few images for the threshold, the others are where none is unknown.
    `auroc` is the probability that an unknown image scores above a known one, `passed` the share of unknown images that
    pass as known where 95% of the known do, `found` the share that is above the threshold of the stated false alarms.

    The intervals of `false_alarms` and `found` are those of a share of the split's images at the threshold as it is;
    validation images set it, and others would have set another. That of `auroc` is of the split's known and unknown
    images, or subjects where there are groups. That of `passed`, whose threshold the split's own known images set, is
    where a bootstrap of both and the interval of a share at this threshold reach: resampling alone says 0 to 0 where
    none passes.
    """

    method: str
    false_alarms: Figure | None
    auroc: Figure | None = None
    passed: Figure | None = None
    found: Figure | None = None


@dataclass(frozen=True)
class Unknowns:
    """The figures of one split.

    `stated` is the rate of false alarms asked for, from `num_calibrating` validation images, one of each subject;
    `is_across` tells that the split is theirs, so that each fifth of it was judged by the other four. `num_unknown`
    images are of classes that were held out of training.
    """

    scores: tuple[ScoreFigures, ...]
    num_calibrating: int
    num_unknown: int
    is_across: bool
    stated: float = FALSE_ALARMS

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        rows = [
            {name: value._asdict() if isinstance(value, Figure) else value for name, value in row._asdict().items()}
            for row in self.scores
        ]
        return {**asdict(self), "scores": rows}

    def table(self) -> Table | None:
        """Return the figures of every score as `rich` prints them; None where there are none."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("of none of the classes? (95%)", overflow="fold")
        table.add_column("", justify="right", overflow="fold")
        for row in self.scores:
            lines = {
                f"{row.method}: false alarms, {self.stated:.0%} stated": row.false_alarms and percent(row.false_alarms),
                "    area under ROC": row.auroc and number(row.auroc, digits=3),
                f"    unknown that pass as {RECALL:.0%} of known do": row.passed and percent(row.passed),
                "    unknown that are found": row.found and percent(row.found),
            }
            for name, text in lines.items():
                if text is not None:
                    table.add_row(name, text)
        return table if table.row_count else None

    def notes(self) -> list[str]:
        """Return what the figures rest on."""
        notes = []
        needed = fewest_images(self.stated)
        if self.num_calibrating < needed:
            notes.append(
                f"false alarms of {self.stated:.0%} take {needed:,} validation images, and there were "
                f"{self.num_calibrating:,}, one of each subject: nothing is called unknown at that rate"
            )
        if self.num_unknown:
            notes.append(
                f"{self.num_unknown:,} images of classes held out of training stand for the unknown; their intervals "
                "are over images, and other classes may be easier or harder to tell"
            )
        return notes


def measure_unknowns(
    known: Predictions,
    judges: Judges | None,
    *,
    unknown: Predictions | None = None,
    false_alarms: float = FALSE_ALARMS,
) -> Unknowns | None:
    """Return the figures of a split; None without scores to set a threshold by.

    Args:
        known: predictions of the split; where they have groups, intervals draw whole ones.
        judges: by what validation told; None where the model is not calibrated.
        unknown: predictions of images of classes that the model was not trained on; None where there are none.
        false_alarms: the rate that is asked for.
    """
    if judges is None or not judges.calibration.unknown:
        return None
    calibration = judges.calibration
    num_calibrating = len(calibration.labels)
    is_promised = num_calibrating >= fewest_images(false_alarms)
    alarms = _alarms(known, judges, rate=false_alarms)
    found = _judge_unknown(known, unknown, calibration, rate=false_alarms) if unknown is not None else {}
    scores = [
        ScoreFigures(method, share_of(alarms[method], known) if is_promised else None, *found.get(method, ()))
        for method in METHODS
        if method in alarms
    ]
    num_unknown = 0 if unknown is None else len(unknown.labels)
    return Unknowns(tuple(scores), num_calibrating, num_unknown, judges.is_across, false_alarms)


def passing_share(known_scores: Rates, unknown_scores: Rates, *, groups: Groups | None = None) -> Figure:
    """Return the share of n unknown images that pass as known where `RECALL` of m known ones do.

    `groups` (m + n,) are the subjects of both, the known first; None where every image is by itself.
    """
    both, num_known = np.concatenate([known_scores, unknown_scores]), len(known_scores)

    def statistic(rows: NDArray[np.int64]) -> Sequence[float]:
        return [false_positive_rate(both[rows[rows < num_known]], both[rows[rows >= num_known]], recall=RECALL)]

    strata = np.split(np.arange(len(both)), [num_known])
    (drawn,) = bootstrap_intervals(statistic, len(both), groups=groups, strata=strata)
    is_passed = unknown_scores <= pass_threshold(known_scores, recall=RECALL)
    fixed = share(is_passed, groups=None if groups is None else groups[num_known:])
    return Figure(fixed.value, min(drawn.low, fixed.low), max(drawn.high, fixed.high))


def _alarms(known: Predictions, judges: Judges, *, rate: float) -> dict[str, NDArray[np.bool_]]:
    """Return by each method which known images are called unknown, (n,)."""
    calibration = judges.calibration
    methods = calibration.unknown_scores(known.logits, known.embeddings).keys() & calibration.unknown.keys()
    alarms = {method: np.zeros(len(known.labels), np.bool_) for method in methods}
    for rows, judge in judges.parts:
        embeddings = None if known.embeddings is None else known.embeddings[rows]
        scores = judge.unknown_scores(known.logits[rows], embeddings)
        for method, raised in alarms.items():
            raised[rows] = scores[method] > alarm_threshold(judge.unknown[method], false_alarms=rate)
    return alarms


def _judge_unknown(
    known: Predictions, unknown: Predictions, calibration: Calibration, *, rate: float
) -> dict[str, Sequence[Figure]]:
    """Return area, passing share and found share by each method."""
    scores, old_scores = (calibration.unknown_scores(found.logits, found.embeddings) for found in (unknown, known))
    groups = None if known.groups is None and unknown.groups is None else [*_subjects(known), *_subjects(unknown)]
    figures: dict[str, Sequence[Figure]] = {}
    for method in scores.keys() & calibration.unknown.keys():
        new, old = scores[method], old_scores[method]
        area = auroc(old, new)
        interval = area_interval(area, _num_subjects(known), _num_subjects(unknown))
        threshold = alarm_threshold(calibration.unknown[method], false_alarms=rate)
        found = share_of(new > threshold, unknown)
        figures[method] = [Figure(area, *interval), passing_share(old, new, groups=groups), found]
    return figures


def _num_subjects(predictions: Predictions) -> int:
    return len(set(_subjects(predictions)))


def _subjects(predictions: Predictions) -> Sequence[str]:
    return predictions.image_ids if predictions.groups is None else predictions.groups.tolist()
