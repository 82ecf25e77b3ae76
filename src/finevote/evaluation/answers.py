"""What is answered under rules: a class, or that an image is of none of the classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError, suggest
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.metrics import Logits
from finevote.evaluation.unknown import METHODS, alarm_threshold, fewest_images
from finevote.types import Answer

NONE_OF_THEM = "none of the classes"


class AnswerRule(NamedTuple):
    """When the answer is not simply the likeliest class.

    `false_alarms` is the share of images of known classes that may be called unknown, by the score `unknown_by`; None
    calls nothing unknown.
    """

    false_alarms: float | None = None
    unknown_by: str = METHODS[0]


class Thresholds(NamedTuple):
    """A rule in numbers: an image whose score by `unknown_by` is above `unknown` is of none of the classes."""

    unknown_by: str
    unknown: float = float("inf")


def find_thresholds(calibration: Calibration, rule: AnswerRule) -> Thresholds:
    """Return the thresholds that keep what a rule asks for on images like those that calibrated.

    Raises:
        ArgumentError: the rule is out of range, has no such score, or asks for more than so few images can promise.
    """
    if rule.false_alarms is None:
        return Thresholds(rule.unknown_by)
    if rule.unknown_by not in METHODS:
        raise ArgumentError(f"no score of the unknown is called {rule.unknown_by!r}{suggest(rule.unknown_by, METHODS)}")
    if rule.unknown_by not in calibration.unknown:
        raise ArgumentError(
            f"the bundle has no scores by {rule.unknown_by!r} to set a threshold by: it was fitted by an earlier "
            "finevote; fit it anew"
        )
    scores = calibration.unknown[rule.unknown_by]
    threshold = alarm_threshold(scores, false_alarms=rule.false_alarms)
    if threshold == float("inf"):
        raise ArgumentError(
            f"false alarms of {rule.false_alarms:g} take {fewest_images(rule.false_alarms):,} validation images, and "
            f"the bundle has seen {len(scores):,}: ask for {1 / (len(scores) + 1):.2g} or more"
        )
    return Thresholds(rule.unknown_by, threshold)


def find_answers(
    logits: Logits,
    embeddings: NDArray[np.floating[Any]],
    *,
    calibration: Calibration,
    thresholds: Thresholds,
    class_names: Sequence[str],
) -> list[Answer]:
    """Return an answer for each image, from its logits (n, C) and embedding (n, D)."""
    answers = [Answer(class_names[label], "class") for label in logits.argmax(axis=1)]
    if thresholds.unknown < float("inf"):
        scores = calibration.unknown_scores(logits, embeddings)[thresholds.unknown_by]
        for row in np.flatnonzero(scores > thresholds.unknown):
            answers[row] = Answer(NONE_OF_THEM, "unknown")
    return answers
