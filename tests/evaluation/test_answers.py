import numpy as np
import pytest

from finevote.errors import ArgumentError
from finevote.evaluation.answers import AnswerRule, find_answers, find_thresholds
from finevote.evaluation.calibrator import calibrate
from tests.evaluation.test_unknown_figures import predictions

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def calibration():
    found = predictions(seed=9)
    means = np.eye(4, 8)
    return calibrate(found, class_means=means)


def answer(calibration, rule, found):
    thresholds = find_thresholds(calibration, rule)
    return find_answers(
        found.logits, found.embeddings, calibration=calibration, thresholds=thresholds, class_names=NAMES
    )


def test_without_rules_the_answer_is_the_likeliest_class(calibration):
    found = predictions(5)
    answers = answer(calibration, AnswerRule(), found)
    assert [said.text for said in answers] == [NAMES[label] for label in found.logits.argmax(axis=1)]
    assert {said.kind for said in answers} == {"class"}


@pytest.mark.parametrize("method", ["distance", "energy", "max_softmax"])
def test_none_of_the_classes_is_said_as_rarely_of_known_images_as_stated_and_more_often_of_others(calibration, method):
    rule = AnswerRule(false_alarms=0.1, unknown_by=method)
    known, unknown = predictions(1000), predictions(1000, classes=(4,))
    rates = [
        np.mean([said == ("none of the classes", "unknown") for said in answer(calibration, rule, found)])
        for found in (known, unknown)
    ]
    assert rates[0] < 0.1 + 3 * (0.09 / 300 + 0.09 / 1000) ** 0.5
    assert rates[1] > 1.5 * rates[0]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (AnswerRule(0.05, "distanc"), "no score of the unknown is called 'distanc'; did you mean 'distance'"),
        (AnswerRule(0.05, "distance"), "has no scores by 'distance'.*fit it anew"),
        (AnswerRule(5, "energy"), "false_alarms=5 must lie between 0 and 1"),
        (AnswerRule(0.001, "energy"), r"false alarms of 0\.001 take 999 validation images.* seen 300.*0\.0033 or more"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rule, words):
    with pytest.raises(ArgumentError, match=words):
        find_thresholds(calibrate(predictions(seed=9)), rule)
