import io
import json

import numpy as np
import pytest
from rich.console import Console

from finevote.evaluation.calibrator import appoint_judges, calibrate
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.metrics import softmax
from finevote.evaluation.selective import promise_error, risk_area
from finevote.evaluation.selective_figures import measure_selective, thin_curve
from finevote.types import Predictions


def predictions(num_images=1000, *, seed=0):
    """Return a calibrated model: labels are drawn from its probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (num_images, 6)).astype(np.float32)
    labels = (softmax(logits).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return Predictions(tuple(f"{seed}-{row}" for row in range(num_images)), labels, logits)


@pytest.fixture(scope="module")
def calibration():
    return calibrate(predictions(seed=1))


@pytest.fixture(scope="module")
def figures(calibration):
    return measure_selective(predictions(), appoint_judges(predictions(), calibration))


def printed(figures):
    console = Console(width=90, file=io.StringIO(), color_system=None)
    console.print(figures.table())
    return console.file.getvalue()


def test_areas_are_those_of_the_curve(figures, calibration):
    found = predictions()
    confidences = calibration.probabilities(found.logits).max(axis=1)
    is_right = found.logits.argmax(axis=1) == found.labels
    assert figures.area.value == pytest.approx(risk_area(confidences, is_right))
    assert 0 < figures.excess.value < figures.area.value
    order = np.argsort(-confidences)
    assert figures.risk_of_surest[0].value == pytest.approx(np.mean(~is_right[order[:500]]))
    assert figures.curve[-1] == (1.0, pytest.approx(np.mean(~is_right)))
    for figure in (figures.area, figures.excess, *figures.risk_of_surest):
        assert figure.low < figure.value < figure.high


def test_a_surest_half_without_a_mistake_still_has_an_interval():
    labels = np.zeros(40, np.int64)
    logits = np.zeros((40, 2), np.float32)
    logits[:, 0] = np.linspace(-0.2, 5, 40)
    risk = measure_selective(Predictions(tuple(map(str, range(40))), labels, logits), None).risk_of_surest[0]
    assert risk == pytest.approx((0, *wilson_interval(0, 20)))


def test_promises_are_kept_by_the_threshold_of_validation(figures, calibration):
    found = predictions()
    row = next(row for row in figures.promises if row.max_error == 0.05)
    promise = promise_error(calibration.confidences, calibration.is_right, max_error=0.05)
    answered = calibration.confidences_of(found.logits) > promise.threshold
    is_right = found.logits.argmax(axis=1) == found.labels
    assert row.answered.value == pytest.approx(answered.mean())
    assert row.error.value == pytest.approx(np.mean(~is_right[answered]))
    assert row.error.low <= 0.05


def test_the_calibrating_split_is_judged_by_other_images_than_itself(calibration):
    found = predictions(seed=1)
    itself, across = (
        measure_selective(found, appoint_judges(found, calibration, is_across=way)) for way in (False, True)
    )
    assert across.promises[-1] != itself.promises[-1]
    assert across.area == itself.area


def test_without_calibration_there_is_a_curve_and_no_promise():
    found = measure_selective(predictions(), None)
    assert (found.promises, found.num_calibrating) == ((), 0)
    assert found.notes() == []
    assert "promised" not in printed(found)


def test_what_cannot_be_promised_is_told():
    found = measure_selective(predictions(), appoint_judges(predictions(), calibrate(predictions(70, seed=1))))
    assert [row.answered for row in found.promises[:2]] == [None, None]
    (note,) = found.notes()
    assert note.startswith("70 validation images, one of each subject, cannot promise an error of 1% or 2%")
    assert "the lowest takes 299 or more" in note


def test_a_few_images_have_a_point_each():
    assert thin_curve(np.array([0.0, 0.5, 0.25])) == ((1 / 3, 0.0), (2 / 3, 0.5), (1.0, 0.25))
    assert len(thin_curve(np.zeros(1234))) == 100


def test_the_table_and_json_hold_every_figure(figures):
    text = printed(figures)
    assert "error among the surest 50%" in text
    assert "error of 5% promised: answered" in text
    values = json.loads(json.dumps(figures.to_dict()))
    assert values["area"] == figures.area._asdict()
    assert values["curve"][0] == figures.curve[0]._asdict()
    assert [row["coverage"] for row in values["risk_of_surest"]] == [0.5, 0.8, 0.9]
    assert [row["max_error"] for row in values["promises"]] == [0.01, 0.02, 0.05]
