"""From logits to ranked answers, under what was asked for. It knows no model, so that every runtime answers alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.addition import check_nothing_added
from finevote.evaluation.answers import AnswerRule, Thresholds, find_answers, find_thresholds
from finevote.evaluation.calibrator import Calibration, SetRule, told_probabilities
from finevote.evaluation.metrics import Logits, rank_classes
from finevote.types import PLAIN, Answer, Ranked, Taxonomy

Outputs = tuple[Logits, NDArray[np.floating[Any]]]  # logits (B, C) and embeddings (B, D)


class Looked(NamedTuple):
    """What a classifier says of a batch, and where it looked.

    logits (B, C) and embeddings (B, D); votes (B, rows, columns), the final votes on the patches of the plain view,
    None for the plain backbone.
    """

    logits: Logits
    embeddings: NDArray[np.floating[Any]]
    votes: NDArray[np.floating[Any]] | None = None


class Ask(NamedTuple):
    """What is wanted of each image: the `top` classes, or a set; an answer where there are thresholds."""

    top: int
    sets: SetRule | None = None
    thresholds: Thresholds | None = None


@dataclass(frozen=True)
class Ranking:
    """What turns a classifier's logits into answers.

    `calibration` is None where no images calibrated it, `keep_rate` that at which the classifier runs, `views`
    what it looks at of each image; it was calibrated on the plain view. `added` are those classes that were added to
    the trained ones, without which it was calibrated.
    """

    class_names: tuple[str, ...]
    calibration: Calibration | None
    taxonomy: Taxonomy | None
    keep_rate: float = 1.0
    views: str = PLAIN
    added: tuple[str, ...] = ()

    def check(self, *, top: int, sets: SetRule | None = None, rule: AnswerRule | None = None) -> Ask:
        """Return what is asked for, with the thresholds of the rule.

        Raises:
            ArgumentError: `top` is under 1, or there is no calibration that holds for `sets` or `rule`, as it does not
                where classes were added.
        """
        if top < 1:
            raise ArgumentError(f"top={top} must be 1 or more: how many classes to name")
        if sets is None and rule is None:
            return Ask(top)
        check_nothing_added(self.added)
        if self.views != PLAIN:
            raise ArgumentError(
                f"what is promised was calibrated on the plain view, and does not hold for views={self.views!r}: "
                "leave out either (--views)"
            )
        calibration = check_calibration(self.calibration, keep_rate=self.keep_rate)
        if sets is not None:  # raises for a bad rule
            calibration.sets(np.ones((1, len(self.class_names))) / len(self.class_names), sets)
        return Ask(top, sets, None if rule is None else find_thresholds(calibration, rule, self.taxonomy))

    def rank(self, image_ids: Sequence[str], outputs: Outputs, ask: Ask) -> list[Ranked]:
        """Return an answer for each image, in order."""
        logits, embeddings = outputs
        probabilities = told_probabilities(logits, self.calibration)
        ranks = rank_classes(logits)
        is_told = np.broadcast_to(np.arange(ranks.shape[1]) < ask.top, ranks.shape)
        if self.calibration is not None and ask.sets is not None:
            is_told = np.take_along_axis(self.calibration.sets(probabilities, ask.sets), ranks, axis=1)
        order = [row[told] for row, told in zip(ranks, is_told, strict=True)]
        answers = self._answers(logits, embeddings, ask.thresholds)
        return [
            Ranked(
                image_id=image_id,
                class_names=tuple(self.class_names[label] for label in labels),
                probabilities=tuple(float(row[label]) for label in labels),
                answer=answer,
            )
            for image_id, row, labels, answer in zip(image_ids, probabilities, order, answers, strict=True)
        ]

    def _answers(
        self, logits: Logits, embeddings: NDArray[np.floating[Any]], thresholds: Thresholds | None
    ) -> Sequence[Answer | None]:
        if self.calibration is None or thresholds is None:
            return [None] * len(logits)
        return find_answers(
            logits,
            embeddings,
            calibration=self.calibration,
            thresholds=thresholds,
            class_names=self.class_names,
            taxonomy=self.taxonomy,
        )


def check_calibration(calibration: Calibration | None, *, keep_rate: float) -> Calibration:
    """Return a calibration that holds at a keep rate.

    Raises:
        ArgumentError: there is none, or it holds at another keep rate.
    """
    if calibration is None:
        raise ArgumentError(
            "the bundle has no calibration for sets or unknowns: it was fitted without validation images, or by an "
            "earlier finevote: fit it with them, or run `finevote calibrate` on the run"
        )
    if calibration.keep_rate != keep_rate:
        raise ArgumentError(
            f"the bundle was calibrated at keep rate {calibration.keep_rate:g}, and nothing is guaranteed at "
            f"{keep_rate:g}: give keep_rate={calibration.keep_rate:g} (--keep-rate)"
        )
    return calibration
