from dataclasses import replace

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
        (AnswerRule(0.05, "distance"), "has no scores by 'distance'.*run `finevote calibrate`"),
        (AnswerRule(5, "energy"), "false_alarms=5 must lie between 0 and 1"),
        (AnswerRule(max_error=0.001), r"promises an error of 0\.001 or less from the 300 .* takes 2,995 or more"),
        (AnswerRule(max_error=1.5), r"max_error=1\.5 must lie between 0 and 1"),
        (AnswerRule(0.001, "energy"), r"false alarms of 0\.001 take 999 validation images.* seen 300.*0\.0033 or more"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(rule, words):
    with pytest.raises(ArgumentError, match=words):
        find_thresholds(calibrate(predictions(seed=9)), rule)


def test_an_unsure_image_gets_no_answer_and_the_error_is_as_promised():
    found = predictions(2000)
    answers = answer(calibrate(predictions(2000, seed=9)), AnswerRule(max_error=0.03), found)
    said = np.array([one.kind for one in answers])
    is_right = found.logits.argmax(axis=1) == found.labels
    assert {one for one in answers if one.kind == "unsure"} == {("not sure", "unsure")}
    assert 0.3 < np.mean(said == "class") < 1
    assert np.mean(~is_right[said == "class"]) < 0.03 < np.mean(~is_right)


def test_what_is_of_none_of_the_classes_is_not_called_unsure(calibration):
    found = predictions(500, classes=(4,))
    unknown = [
        row for row, said in enumerate(answer(calibration, AnswerRule(0.2, "energy"), found)) if said.kind == "unknown"
    ]
    both = answer(calibration, AnswerRule(0.2, "energy", max_error=0.03), found)
    assert [row for row, said in enumerate(both) if said.kind == "unknown"] == unknown
    assert "unsure" in {said.kind for said in both}


def test_a_bundle_of_before_promises_no_error(calibration):
    with pytest.raises(ArgumentError, match="does not know which validation images were named right"):
        find_thresholds(replace(calibration, is_right=None), AnswerRule(max_error=0.1))
