"""How far a model can be believed: what validation images tell once, and figures of it for any split."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError, suggest
from finevote.evaluation import conformal
from finevote.evaluation.bootstrap import bootstrap_intervals
from finevote.evaluation.calibration import (
    ReliabilityBin,
    apply_temperature,
    brier_scores,
    calibration_error,
    confidences_of,
    fit_temperature,
    negative_log_likelihoods,
    reliability_bins,
)
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.metrics import Labels, Rates
from finevote.evaluation.predict import take_rows
from finevote.types import Predictions

COVERAGE = 0.95
NUM_FOLDS = 5
Groups = Sequence[Hashable]


class SetRule(NamedTuple):
    """Which sets are wanted: of which coverage, by which method ("lac", "aps", "raps"), for each class or over all."""

    coverage: float
    method: str = "lac"
    each_class: bool = False


@dataclass(frozen=True)
class Calibration:
    """What validation images tell of a model; it is kept in the bundle.

    `temperature` divides the logits. `scores` maps each conformal method to the scores of the images' own classes (n,),
    which give the threshold of any coverage; `labels` (n,) are those classes. All of it holds at `keep_rate`.
    """

    temperature: float
    labels: Labels
    scores: Mapping[str, Rates]
    keep_rate: float = 1.0

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Rates:
        """Return probabilities (n, C) at the temperature."""
        return apply_temperature(logits, self.temperature)

    def sets(self, probabilities: Rates, rule: SetRule) -> NDArray[np.bool_]:
        """Return which classes the set of each image holds, (n, C), from probabilities at the temperature.

        Raises:
            ArgumentError: there is no such method, or the coverage is not between 0 and 1.
        """
        if rule.method not in self.scores:
            raise ArgumentError(f"there are no sets by {rule.method!r}{suggest(rule.method, self.scores)}")
        scores, coverage = self.scores[rule.method], rule.coverage
        threshold: float | Rates = conformal.conformal_threshold(scores, coverage=coverage)
        if rule.each_class:
            threshold = conformal.class_thresholds(
                scores, self.labels, coverage=coverage, num_classes=probabilities.shape[1]
            )
        return conformal.prediction_sets(probabilities, threshold, method=rule.method)


class Figure(NamedTuple):
    """A figure with the ends of its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Reliability:
    """How far probabilities may be believed: errors by bins of equal width and equal mass, Brier score, likelihood."""

    calibration_error: Figure
    calibration_error_mass: Figure
    brier: Figure
    negative_log_likelihood: Figure
    bins: tuple[ReliabilityBin, ...]


class SetFigures(NamedTuple):
    """How sets of one method fared."""

    method: str
    coverage: Figure
    mean_size: Figure


@dataclass(frozen=True)
class Trust:
    """The figures of one split. What needs validation images is None or empty where the bundle has seen none.

    `num_images` are those that calibrated, one calibration on which gives a coverage between `guarantee_low` and
    `guarantee_high` with probability 0.95. `is_across` tells that the split is the calibrating one, so that each
    fifth of it was judged by the other four.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        values = asdict(self)
        for name in ("before", "after"):
            if (found := getattr(self, name)) is not None:
                values[name] = {key: _plain(value) for key, value in vars(found).items()}
        values["sets"] = [{key: _plain(value) for key, value in row._asdict().items()} for row in self.sets]
        return values


def calibrate(predictions: Predictions, *, keep_rate: float = 1.0) -> Calibration:
    """Return what a split that the model was not fitted to tells of it; Raises as `fit_temperature` does."""
    temperature = fit_temperature(predictions.logits, predictions.labels)
    probabilities = apply_temperature(predictions.logits, temperature)
    scores = {
        method: conformal.true_scores(probabilities, predictions.labels, method=method) for method in conformal.METHODS
    }
    return Calibration(temperature, predictions.labels, scores, keep_rate)


def measure_trust(
    predictions: Predictions,
    calibration: Calibration | None,
    *,
    groups: Groups | None = None,
    is_across: bool = False,
    coverage: float = COVERAGE,
) -> Trust:
    """Return the figures of a split.

    Args:
        predictions: of the split.
        calibration: of the model; None where there is none.
        groups: one for each image where several show one subject; intervals then draw whole groups.
        is_across: the split is the one that calibrated: each fifth of its groups is judged by the others.
        coverage: of the sets.
    """
    uncalibrated = apply_temperature(predictions.logits, 1.0)
    before = _reliability(uncalibrated, predictions, temperature=1.0, groups=groups)
    if calibration is None:
        return Trust(before)
    judges = _judges(predictions, groups) if is_across else [(np.arange(len(predictions.labels)), calibration)]
    probabilities = np.empty_like(uncalibrated)
    temperatures = np.ones(len(probabilities))
    sets = {method: np.zeros(probabilities.shape, np.bool_) for method in calibration.scores}
    for rows, judge in judges:
        probabilities[rows] = judge.probabilities(predictions.logits[rows])
        temperatures[rows] = judge.temperature
        for method, held in sets.items():
            held[rows] = judge.sets(probabilities[rows], SetRule(coverage, method))
    low, high = conformal.coverage_range(len(calibration.labels), coverage=coverage)
    return Trust(
        before=before,
        after=_reliability(probabilities, predictions, temperature=temperatures, groups=groups),
        temperature=calibration.temperature,
        num_images=len(calibration.labels),
        is_across=is_across,
        coverage=coverage,
        guarantee_low=low,
        guarantee_high=high,
        sets=tuple(_set_figures(method, held, predictions.labels, groups) for method, held in sets.items()),
    )


def _judges(predictions: Predictions, groups: Groups | None) -> list[tuple[NDArray[np.int64], Calibration]]:
    """Return the rows of each fifth of the groups, with what the others tell; one fifth where there is one group."""
    names = predictions.image_ids if groups is None else groups
    _, numbers = np.unique(np.asarray(names, np.str_), return_inverse=True)
    places = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % NUM_FOLDS  # (n,)
    folds = [np.flatnonzero(places == fold) for fold in range(NUM_FOLDS)]
    filled = [rows for rows in folds if len(rows)]
    if len(filled) == 1:
        return [(filled[0], calibrate(predictions))]
    everything = np.arange(len(numbers))
    return [(rows, calibrate(take_rows(predictions, np.setdiff1d(everything, rows)))) for rows in filled]


def _reliability(
    probabilities: Rates, predictions: Predictions, *, temperature: float | Rates, groups: Groups | None
) -> Reliability:
    labels = predictions.labels
    confidences, is_right = confidences_of(probabilities, labels)
    scaled = predictions.logits / np.reshape(np.asarray(temperature, np.float64), (-1, 1))
    losses, squares = negative_log_likelihoods(scaled, labels), brier_scores(probabilities, labels)

    def statistic(rows: NDArray[np.int64]) -> list[float]:
        sure, right = confidences[rows], is_right[rows]
        errors = [calibration_error(sure, right, bins="width"), calibration_error(sure, right, bins="mass")]
        return [*errors, float(squares[rows].mean()), float(losses[rows].mean())]

    error, error_mass, brier, likelihood = _with_intervals(statistic, len(labels), groups)
    return Reliability(error, error_mass, brier, likelihood, reliability_bins(confidences, is_right))


def _set_figures(method: str, held: NDArray[np.bool_], labels: Labels, groups: Groups | None) -> SetFigures:
    covered, sizes = held[np.arange(len(labels)), labels], held.sum(axis=1)
    coverage, size = _with_intervals(lambda rows: [covered[rows].mean(), sizes[rows].mean()], len(labels), groups)
    if groups is None:
        coverage = Figure(coverage.value, *wilson_interval(int(covered.sum()), len(labels)))
    return SetFigures(method, coverage, size)


def _with_intervals(
    statistic: Callable[[NDArray[np.int64]], Sequence[float]], num_images: int, groups: Groups | None
) -> list[Figure]:
    values = statistic(np.arange(num_images))
    intervals = bootstrap_intervals(statistic, num_images, groups=groups)
    return [Figure(float(value), *interval) for value, interval in zip(values, intervals, strict=True)]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    return [_plain(row) for row in value] if isinstance(value, tuple) else value
