"""How far a model can be believed: figures of any split, by what validation images told once."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.evaluation import conformal
from finevote.evaluation.calibration import (
    Bins,
    ReliabilityBin,
    apply_temperature,
    brier_scores,
    calibration_error,
    confidences_of,
    negative_log_likelihoods,
    reliability_bins,
)
from finevote.evaluation.calibration_interval import calibration_error_interval
from finevote.evaluation.calibrator import Judges, SetRule
from finevote.evaluation.figure import Figure, number, percent, share_of
from finevote.evaluation.means import mean_interval
from finevote.evaluation.metrics import Rates
from finevote.types import Predictions

COVERAGE = 0.95
WEAK_BELOW = 0.05  # how far below what is asked the coverage of one calibration may lie without a warning
_NAMES = {
    "calibration_error": "calibration error",
    "calibration_error_mass": "    bins of equal mass",
    "brier": "Brier score",
    "negative_log_likelihood": "neg. log-likelihood",
}


@dataclass(frozen=True)
class Reliability:
    """How far probabilities may be believed: errors by bins of equal width and equal mass, Brier score, likelihood.

    `expected_at_zero` is the error by bins of equal width that perfect probabilities would show on as many images.
    """

    calibration_error: Figure
    calibration_error_mass: Figure
    brier: Figure
    negative_log_likelihood: Figure
    bins: tuple[ReliabilityBin, ...]
    expected_at_zero: float


class SetFigures(NamedTuple):
    """How sets of one method fared, with one threshold for all classes, or with one for each class."""

    method: str
    each_class: bool
    coverage: Figure
    mean_size: Figure


@dataclass(frozen=True)
class Trust:
    """The figures of one split. What needs validation images is None or empty where the bundle has seen none.

    `num_images` are those that sets rest on, one of each subject, one calibration on which gives a coverage between
    `guarantee_low` and `guarantee_high` with probability 0.95. `is_across` tells that the split is the calibrating one,
    so that each fifth of it was judged by the other four. Of `num_open_classes` there are too few of these images for a
    threshold of their own: they are in every set by class, and where that is all classes, there are no figures of such
    sets.
    """

    before: Reliability
    after: Reliability | None = None
    temperature: float | None = None
    num_images: int = 0
    is_across: bool = False
    coverage: float = COVERAGE
    guarantee_low: float | None = None
    guarantee_high: float | None = None
    sets: tuple[SetFigures, ...] = ()
    num_open_classes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        values = asdict(self)
        for name in ("before", "after"):
            if (found := getattr(self, name)) is not None:
                values[name] = {key: _plain(value) for key, value in vars(found).items()}
        values["sets"] = [{key: _plain(value) for key, value in row._asdict().items()} for row in self.sets]
        return values

    def table(self) -> Table:
        """Return calibration before and after the temperature, and the sets, as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("can it be believed? (95%)", overflow="fold")
        for name in ("as trained", "calibrated")[: 1 if self.after is None else 2]:
            table.add_column(name, justify="right", overflow="fold")
        versions = [version for version in (self.before, self.after) if version is not None]
        for name, label in _NAMES.items():
            table.add_row(label, *(_describe(name, version) for version in versions))
        for row in self.sets:
            kind = f"{row.method} sets{' by class' if row.each_class else ''}"
            table.add_row(f"{kind} for {self.coverage:.0%}: cover", "", percent(row.coverage))
            table.add_row("    classes in a set", "", number(row.mean_size, digits=1))
        return table

    def notes(self) -> list[str]:
        """Return what calibrated, and how weak a guarantee its images give."""
        notes = self._error_notes()
        if self.temperature is None or self.guarantee_low is None or self.guarantee_high is None:
            return ["not calibrated: the model was fitted without validation images, or by an earlier finevote", *notes]
        how = "; here each fifth of the split is judged by the other four" if self.is_across else ""
        images = f"{self.num_images:,} validation images, one of each subject"
        notes = [f"calibrated: temperature {self.temperature:.3g}; promises rest on {images}{how}", *notes]
        if self.guarantee_high == self.guarantee_low == 1:
            notes.append(
                f"{self.num_images:,} images are too few for sets of {self.coverage:.0%}: they hold every class"
            )
        elif self.guarantee_low < self.coverage - WEAK_BELOW:
            notes.append(
                f"the guarantee of {self.coverage:.0%} is weak: it holds on average over calibrations, and one on "
                f"{self.num_images:,} images covers between {self.guarantee_low:.1%} and {self.guarantee_high:.1%}"
            )
        if self.num_open_classes:
            whose = "four fifths of the validation images" if self.is_across else "the validation images"
            notes.append(
                f"sets by class (--each-class) for {self.coverage:.0%} always hold {self.num_open_classes:,} classes: "
                f"too few of {whose} show these"
            )
        return notes

    def _error_notes(self) -> list[str]:
        shown = self.after or self.before
        if shown.calibration_error.value <= shown.calibration_error.high:
            return []
        expected = f"{shown.expected_at_zero:.1%} on average"
        return [f"few images show a calibration error where there is none, here {expected}; the interval is without it"]


def measure_trust(predictions: Predictions, judges: Judges | None, *, coverage: float = COVERAGE) -> Trust:
    """Return the figures of a split.

    Args:
        predictions: of the split; where they have groups, intervals draw whole ones.
        judges: by what validation told; None where the model is not calibrated.
        coverage: of the sets.
    """
    uncalibrated = apply_temperature(predictions.logits, 1.0)
    before = _reliability(uncalibrated, predictions, temperature=1.0)
    if judges is None:
        return Trust(before)
    calibration = judges.calibration
    probabilities = np.empty_like(uncalibrated)
    temperatures = np.ones(len(probabilities))
    num_classes = probabilities.shape[1]
    over_all = [SetRule(coverage, method) for method in calibration.scores]
    by_class = [rule._replace(each_class=True) for rule in over_all]
    num_open = max(
        (judge.count_always_in(rule, num_classes=num_classes) for rule in by_class for _, judge in judges.parts),
        default=0,
    )
    rules = [*over_all, *by_class] if num_open < num_classes else over_all
    sets = {rule: np.zeros(probabilities.shape, np.bool_) for rule in rules}
    for rows, judge in judges.parts:
        probabilities[rows] = judge.probabilities(predictions.logits[rows])
        temperatures[rows] = judge.temperature
        for rule, held in sets.items():
            held[rows] = judge.sets(probabilities[rows], rule)
    low, high = conformal.coverage_range(len(calibration.labels), coverage=coverage)
    return Trust(
        before=before,
        after=_reliability(probabilities, predictions, temperature=temperatures),
        temperature=calibration.temperature,
        num_images=len(calibration.labels),
        is_across=judges.is_across,
        coverage=coverage,
        guarantee_low=low,
        guarantee_high=high,
        sets=tuple(_set_figures(rule, held, predictions) for rule, held in sets.items()),
        num_open_classes=num_open,
    )


def _reliability(probabilities: Rates, predictions: Predictions, *, temperature: float | Rates) -> Reliability:
    labels = predictions.labels
    confidences, is_right = confidences_of(probabilities, labels)
    scaled = predictions.logits / np.reshape(np.asarray(temperature, np.float64), (-1, 1))
    losses, squares = negative_log_likelihoods(scaled, labels), brier_scores(probabilities, labels)

    error, expected = _error(confidences, is_right, predictions, bins="width")
    error_mass, _ = _error(confidences, is_right, predictions, bins="mass")
    return Reliability(
        error,
        error_mass,
        brier=_mean(squares, predictions),
        negative_log_likelihood=_mean(losses, predictions),
        bins=reliability_bins(confidences, is_right),
        expected_at_zero=expected,
    )


def _error(
    confidences: Rates, is_right: NDArray[np.bool_], predictions: Predictions, *, bins: Bins
) -> tuple[Figure, float]:
    """Return a calibration error, and what perfect probabilities would show on as many images."""
    interval, expected = calibration_error_interval(confidences, is_right, bins=bins, groups=predictions.groups)
    return Figure(calibration_error(confidences, is_right, bins=bins), *interval), expected


def _mean(values: NDArray[np.floating[Any]], predictions: Predictions, *, reach: float = 0.0) -> Figure:
    return Figure(float(values.mean()), *mean_interval(values, groups=predictions.groups, reach=reach))


def _set_figures(rule: SetRule, held: NDArray[np.bool_], predictions: Predictions) -> SetFigures:
    labels = predictions.labels
    covered, sizes = held[np.arange(len(labels)), labels], held.sum(axis=1).astype(np.float64)
    return SetFigures(rule.method, rule.each_class, share_of(covered, predictions), _mean(sizes, predictions, reach=1))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return [_plain(row) for row in value] if isinstance(value, tuple) else value


def _describe(name: str, version: Reliability) -> str:
    figure: Figure = getattr(version, name)
    return percent(figure) if name.startswith("calibration_error") else number(figure, digits=3)
