"""What is answered under rules: a class or its genus, that an image is of none of the classes, or nothing."""

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError, suggest
from finevote.evaluation import selective, unknown
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.metrics import Logits, Rates
from finevote.evaluation.selective import promise_error
from finevote.evaluation.taxonomy import NOWHERE, deepest_sure, levels_of
from finevote.evaluation.unknown import METHODS, alarm_threshold
from finevote.types import Answer, Taxonomy

NONE_OF_THEM, NOT_SURE = "none of the classes", "not sure"


class AnswerRule(NamedTuple):
    """When the answer is not simply the likeliest class.

    `false_alarms` is the share of images of known classes that may be called unknown, by the score `unknown_by`; None
    calls nothing unknown. `max_error` is the share of answers that may be wrong, among images of known classes and with
    95% confidence (`selective.promise_error`); None answers every image. `sure` is the probability that an answer
    takes: the class, or the deepest level of the taxonomy that reaches it; None asks for none.
    """

    false_alarms: float | None = None
    unknown_by: str = METHODS[0]
    max_error: float | None = None
    sure: float | None = None


class Thresholds(NamedTuple):
    """A rule in numbers.

    An image whose score by `unknown_by` is above `unknown` is of none of the classes; a class is named where its
    probability is above `confidence`, and a taxon where it is `sure` or more.
    """

    unknown_by: str
    unknown: float = inf
    confidence: float = -inf
    sure: float | None = None


def find_thresholds(calibration: Calibration, rule: AnswerRule, taxonomy: Taxonomy | None = None) -> Thresholds:
    """Return the thresholds that keep what a rule asks for on images like those that calibrated.

    Raises:
        ArgumentError: the rule is out of range, has no such score, or asks for more than so few images can promise; or
            it asks for levels, and there is no taxonomy.
    """
    _check_sure(rule, taxonomy)
    score = inf if rule.false_alarms is None else _find_unknown(calibration, rule.unknown_by, rule.false_alarms)
    confidence = -inf if rule.max_error is None else _find_confidence(calibration, rule.max_error)
    return Thresholds(rule.unknown_by, score, confidence, rule.sure)


def find_answers(
    logits: Logits,
    embeddings: NDArray[np.floating[Any]],
    *,
    calibration: Calibration,
    thresholds: Thresholds,
    class_names: Sequence[str],
    taxonomy: Taxonomy | None = None,
) -> list[Answer]:
    """Return an answer for each image, from its logits (n, C) and embedding (n, D)."""
    answers = [Answer(class_names[label], "class") for label in logits.argmax(axis=1)]
    if taxonomy is not None and thresholds.sure is not None:
        answers = _name_taxa(calibration.probabilities(logits), taxonomy, sure=thresholds.sure)
    for row in np.flatnonzero(calibration.confidences_of(logits) <= thresholds.confidence):
        answers[row] = Answer(NOT_SURE, "unsure")
    if thresholds.unknown < inf:
        scores = calibration.unknown_scores(logits, embeddings)[thresholds.unknown_by]
        for row in np.flatnonzero(scores > thresholds.unknown):
            answers[row] = Answer(NONE_OF_THEM, "unknown")
    return answers


def _name_taxa(probabilities: Rates, taxonomy: Taxonomy, *, sure: float) -> list[Answer]:
    levels = levels_of(taxonomy)
    answers = []
    for depth, taxon in zip(*deepest_sure(probabilities, levels, sure=sure), strict=True):
        if depth == NOWHERE:
            answers.append(Answer(NOT_SURE, "unsure"))
        else:
            answers.append(Answer(levels[depth].taxa[taxon], levels[depth].name if depth else "class"))
    return answers


def _check_sure(rule: AnswerRule, taxonomy: Taxonomy | None) -> None:
    if rule.sure is None:
        return
    if not 0 < rule.sure < 1:
        raise ArgumentError(f"sure={rule.sure:g} must lie between 0 and 1, e.g. 0.9")
    if rule.max_error is not None:
        raise ArgumentError("sure and max_error are two ways to leave a class unnamed: leave out one")
    if taxonomy is None:
        raise ArgumentError(
            "the bundle has no taxonomy to answer from: put a taxonomy.csv beside the data, or give one by --taxonomy, "
            "and run `finevote calibrate` on the run"
        )


def _find_unknown(calibration: Calibration, method: str, false_alarms: float) -> float:
    if method not in METHODS:
        raise ArgumentError(f"no score of the unknown is called {method!r}{suggest(method, METHODS)}")
    if method not in calibration.unknown:
        raise ArgumentError(
            f"the bundle has no scores by {method!r} to set a threshold by: it was fitted by an earlier finevote; "
            "run `finevote calibrate` on the run"
        )
    scores = calibration.unknown[method]
    threshold = alarm_threshold(scores, false_alarms=false_alarms)
    if threshold == inf:
        raise ArgumentError(
            f"false alarms of {false_alarms:g} take {unknown.fewest_images(false_alarms):,} validation images, and the "
            f"bundle has seen {len(scores):,}, one of each subject: ask for {1 / (len(scores) + 1):.2g} or more"
        )
    return threshold


def _find_confidence(calibration: Calibration, max_error: float) -> float:
    if calibration.confidences is None or calibration.is_right is None:
        raise ArgumentError(
            "the bundle does not know which validation images were named right: it was fitted by an earlier finevote; "
            "run `finevote calibrate` on the run"
        )
    promise = promise_error(calibration.confidences, calibration.is_right, max_error=max_error)
    if promise is None:
        raise ArgumentError(
            f"no confidence promises an error of {max_error:g} or less from the {len(calibration.labels):,} validation "
            f"images of the bundle, one of each subject: it takes {selective.fewest_images(max_error):,} or more above "
            "a threshold, with hardly a mistake among them; allow more error, or fit with more validation images"
        )
    return promise.threshold
