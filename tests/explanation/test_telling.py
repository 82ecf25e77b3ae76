from dataclasses import replace

import numpy as np
import pytest

from finevote.explanation.explained import PredictionSet, Verdict
from finevote.explanation.telling import finding, percent, tell_contrast, tell_set, tell_verdict
from tests.explanation.explanations import some_explanation, some_votes


def votes_on(*counts):
    votes = some_votes(grid=(2, 5))
    votes.final[:] = np.array(counts, np.float32).reshape(2, 5)
    return votes


def test_a_finding_is_the_class_and_where_half_of_the_votes_lie():
    explanation = some_explanation(votes=votes_on(5, 2, 1, 1, 1, 0, 0, 0, 0, 0))
    assert finding(explanation) == "great tit, 93%: half of the votes on 10% of the view"


def test_an_unknown_image_is_told_as_such():
    found = finding(some_explanation(verdict=Verdict(True, 0.5, 0.3, "energy", 0.05)))
    assert found.startswith("None of the classes (the likeliest: great tit, 93%): half of the votes")


@pytest.mark.parametrize(
    ("true", "said"), [("coal_tit", "great tit, 93% (is coal tit):"), ("great tit", "great tit, 93%:")]
)
def test_a_wrong_class_is_told_with_the_true_one(true, said):
    assert finding(some_explanation(true_name=true)).startswith(said)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0%"), (1e-6, "<1%"), (0.005, "<1%"), (0.5, "50%"), (0.9949, "99%"), (0.996, ">99%"), (1.0, "100%")],
)
def test_what_is_not_quite_sure_is_not_told_as_sure(share, said):
    assert percent(share) == said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "b_c"), "In the set that holds the true class of 80% of images: a, b c"),
        (tuple("abcdef"), "In the set that holds the true class of 80% of images: a, b, c and 3 more"),
        ((), "Empty is the set that holds the true class of 80% of images: none is likely enough"),
    ],
)
def test_a_set_is_told_by_its_likeliest_classes(names, said):
    assert tell_set(some_explanation(prediction_set=PredictionSet(0.8, "lac", names))) == said


def test_a_verdict_is_told_with_score_and_threshold():
    said = tell_verdict(some_explanation(verdict=Verdict(True, 0.512, 0.3, "max_softmax", 0.05)))
    assert said == "Called unknown: its score by max softmax, 0.512, is above 0.3, which 5% of known images pass"
    assert tell_verdict(some_explanation()).startswith("Not called unknown: its score by distance, 0.21, is not above")


def test_nothing_is_told_of_what_is_not_there():
    explanation = some_explanation(prediction_set=None, verdict=None)
    assert (tell_set(explanation), tell_verdict(explanation)) == ("", "")


def test_a_contrast_is_told_by_its_three_parts():
    contrast = some_explanation().contrast
    said = tell_contrast(contrast)
    assert said.startswith(f"Logits differ by +3.20: {contrast.difference_without:+.2f} without any selected token, ")
    assert f"{contrast.contributions.sum():+.2f} by the patches" in said


def test_small_differences_are_told_with_as_many_digits_as_the_largest_part_needs():
    contrast = replace(
        some_explanation().contrast,
        difference=4e-5,
        difference_without=0.02234,
        contributions=np.full((1, 1), 4e-5 - 0.02234),
        standard_errors=np.full((1, 1), 0.0035),
    )
    assert tell_contrast(contrast) == (
        "Logits differ by +0.0000: +0.0223 without any selected token, -0.0223 by the patches "
        "(standard error of one: up to 0.004)"
    )
