"""What validation images tell of a model once, kept in its bundle: a temperature, and thresholds of any coverage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError, suggest
from finevote.evaluation import conformal
from finevote.evaluation.calibration import apply_temperature, fit_temperature
from finevote.evaluation.metrics import Labels, Rates, softmax
from finevote.evaluation.rows import take_rows
from finevote.evaluation.unknown import unknown_scores
from finevote.types import Predictions

NUM_FOLDS = 5


class SetRule(NamedTuple):
    """Which sets are wanted: of which coverage, by which method ("lac", "aps", "raps"), for each class or over all."""

    coverage: float
    method: str = "lac"
    each_class: bool = False


@dataclass(frozen=True)
class Calibration:
    """What validation images tell of a model; it is kept in the bundle.

    `temperature` divides the logits. All else is of n images, one of each subject, since promises count them as drawn
    independently. `scores` maps each conformal method to the scores of the images' own classes (n,), which give the
    threshold of any coverage; `labels` (n,) are those classes. `is_right` (n,) tells which images are named right,
    `unknown` maps each method to the images' scores of being of none of the classes (n,), and `class_means` (C, D) are
    what "distance" is measured to; each is empty or None where a bundle has none of it. All of it holds at `keep_rate`.
    """

    temperature: float
    labels: Labels
    scores: Mapping[str, Rates]
    keep_rate: float = 1.0
    is_right: NDArray[np.bool_] | None = None
    unknown: Mapping[str, Rates] = field(default_factory=dict)
    class_means: Rates | None = None

    @property
    def confidences(self) -> Rates | None:
        """How sure the model is of its answers to the images that calibrated, (n,), as `confidences_of` has it."""
        scores = self.unknown.get("max_softmax")
        return None if scores is None else 1 - scores

    def confidences_of(self, logits: NDArray[np.floating[Any]]) -> Rates:
        """Return the probability of the likeliest class, (n,), at the temperature."""
        return 1 - self.unknown_scores(logits, None)["max_softmax"]

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Rates:
        """Return probabilities (n, C) at the temperature."""
        return apply_temperature(logits, self.temperature)

    def sets(self, probabilities: Rates, rule: SetRule) -> NDArray[np.bool_]:
        """Return which classes the set of each image holds, (n, C), from probabilities at the temperature.

        Raises:
            ArgumentError: there is no such method, or the coverage is not between 0 and 1.
        """
        thresholds = self._thresholds(rule, num_classes=probabilities.shape[1])
        return conformal.prediction_sets(probabilities, thresholds, method=rule.method)

    def count_always_in(self, rule: SetRule, *, num_classes: int) -> int:
        """Return how many classes are in every set, for want of images that the coverage could be kept by.

        Raises as `sets` does.
        """
        return int(np.isinf(self._thresholds(rule, num_classes=num_classes)).sum())

    def _thresholds(self, rule: SetRule, *, num_classes: int) -> Rates:
        """Return the score up to which each class is in a set, (C,)."""
        if rule.method not in self.scores:
            raise ArgumentError(f"there are no sets by {rule.method!r}{suggest(rule.method, self.scores)}")
        scores, coverage = self.scores[rule.method], rule.coverage
        if rule.each_class:
            return conformal.class_thresholds(scores, self.labels, coverage=coverage, num_classes=num_classes)
        return np.full(num_classes, conformal.conformal_threshold(scores, coverage=coverage))

    def unknown_scores(
        self, logits: NDArray[np.floating[Any]], embeddings: NDArray[np.floating[Any]] | None
    ) -> dict[str, Rates]:
        """Return by each method how much images look as if of none of the classes, (n,), as `unknown` has them."""
        return unknown_scores(logits, embeddings, temperature=self.temperature, means=self.class_means)


def told_probabilities(logits: NDArray[np.floating[Any]], calibration: Calibration | None) -> Rates:
    """Return probabilities (n, C) as they are told to people: at the temperature where there is one."""
    return softmax(logits) if calibration is None else calibration.probabilities(logits)


def calibrate(predictions: Predictions, *, keep_rate: float = 1.0, class_means: Rates | None = None) -> Calibration:
    """Return what a split that the model was not fitted to tells of it; Raises as `fit_temperature` does.

    The temperature is fitted to all images. What promises rest on is of one image of each group, drawn with a fixed
    seed: these are independent where groups are, and what is promised of them holds for an image of a new group
    whatever the groups are like (subsampling once: Dunn, Wasserman and Ramdas 2023). `class_means` (C, D) come from
    other images than these, so that these lie as far from them as new ones.
    """
    temperature = fit_temperature(predictions.logits, predictions.labels)
    chosen = take_rows(predictions, _one_of_each(predictions))
    logits, labels = chosen.logits, chosen.labels
    probabilities = apply_temperature(logits, temperature)
    return Calibration(
        temperature=temperature,
        labels=labels,
        scores={method: conformal.true_scores(probabilities, labels, method=method) for method in conformal.METHODS},
        keep_rate=keep_rate,
        is_right=logits.argmax(axis=1) == labels,
        unknown=unknown_scores(logits, chosen.embeddings, temperature=temperature, means=class_means),
        class_means=class_means,
    )


def _one_of_each(predictions: Predictions) -> NDArray[np.int64]:
    """Return the rows of one image of each group, drawn at random; all rows where there are no groups."""
    order = np.random.default_rng(0).permutation(len(predictions.labels))
    if predictions.groups is not None:
        order = order[np.unique(predictions.groups[order], return_index=True)[1]]
    return np.sort(order)


class Judges(NamedTuple):
    """Who judges which rows of a split by what validation images told.

    `calibration` is the model's own. `parts` are rows (m,), each with the calibration that judges them: all rows by the
    model's own, or, where `is_across`, each fifth by what the others tell.
    """

    calibration: Calibration
    parts: tuple[tuple[NDArray[np.int64], Calibration], ...]
    is_across: bool


def appoint_judges(predictions: Predictions, calibration: Calibration, *, is_across: bool = False) -> Judges:
    """Return who judges a split. Images of one group stay together; where there is one group alone, it judges itself.

    Args:
        predictions: of the split that is judged.
        calibration: of the model.
        is_across: the split is the one that calibrated.
    """
    everything = np.arange(len(predictions.labels))
    if not is_across:
        return Judges(calibration, ((everything, calibration),), is_across)
    names = predictions.image_ids if predictions.groups is None else predictions.groups
    _, numbers = np.unique(np.asarray(names, np.str_), return_inverse=True)
    places = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % NUM_FOLDS  # (n,)
    folds = [rows for fold in range(NUM_FOLDS) if len(rows := np.flatnonzero(places == fold))]
    others = [np.setdiff1d(everything, rows) if len(folds) > 1 else rows for rows in folds]
    given: dict[str, Any] = {"keep_rate": calibration.keep_rate, "class_means": calibration.class_means}
    told = [calibrate(take_rows(predictions, rows), **given) for rows in others]
    return Judges(calibration, tuple(zip(folds, told, strict=True)), is_across)
