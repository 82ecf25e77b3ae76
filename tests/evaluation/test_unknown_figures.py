import io
import json

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

from finevote.evaluation.calibrator import appoint_judges, calibrate
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.unknown import alarm_threshold, class_means
from finevote.evaluation.unknown_figures import measure_unknowns
from finevote.types import Predictions

CENTRES = np.eye(5, 8) * 4  # five classes, the last of which nobody learns


def predictions(num_images=300, *, classes=(0, 1, 2, 3), seed=0, groups=None):
    """Return embeddings around their class's centre, and the logits of a model that knows four of the centres."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, num_images)
    embeddings = (CENTRES[labels] + rng.normal(0, 1.5, (num_images, 8))).astype(np.float32)
    image_ids = tuple(f"{classes}-{seed}-{row}" for row in range(num_images))
    known = np.where(labels < 4, labels, -1)
    return Predictions(image_ids, known, embeddings @ CENTRES[:4].T.astype(np.float32), None, None, embeddings, groups)


@pytest.fixture(scope="module")
def calibration():
    trained = predictions(seed=9)
    means = class_means(trained.embeddings, trained.labels, num_classes=4)
    return calibrate(predictions(400, seed=1), class_means=means)


@pytest.fixture(scope="module")
def unknown():
    return predictions(120, classes=(4,), seed=2)


@pytest.fixture(scope="module")
def figures(calibration, unknown):
    return measure_unknowns(predictions(), appoint_judges(predictions(), calibration), unknown=unknown)


def printed(figures):
    console = Console(width=90, file=io.StringIO(), color_system=None)
    console.print(figures.table())
    return console.file.getvalue()


def test_every_score_is_judged_as_by_scikit_learn(figures, calibration, unknown):
    known = predictions()
    for row in figures.scores:
        old = calibration.unknown_scores(known.logits, known.embeddings)[row.method]
        new = calibration.unknown_scores(unknown.logits, unknown.embeddings)[row.method]
        area = roc_auc_score([0] * len(old) + [1] * len(new), np.concatenate([old, new]))
        assert row.auroc.value == pytest.approx(area)
        threshold = alarm_threshold(calibration.unknown[row.method], false_alarms=0.05)
        assert row.false_alarms.value == pytest.approx((old > threshold).mean())
        assert row.found.value == pytest.approx((new > threshold).mean())
        for figure in (row.auroc, row.passed, row.found, row.false_alarms):
            assert figure.low < figure.value < figure.high


def test_false_alarms_of_new_images_are_as_rare_as_stated(figures):
    assert [row.method for row in figures.scores] == ["distance", "energy", "max_softmax"]
    assert all(row.false_alarms.low <= 0.05 for row in figures.scores)


def test_without_unknown_images_there_are_false_alarms_alone(calibration):
    found = measure_unknowns(predictions(), appoint_judges(predictions(), calibration))
    assert all(row[2:] == (None, None, None) for row in found.scores)
    assert found.notes() == []
    assert "area under ROC" not in printed(found)


def test_the_calibrating_split_is_judged_by_other_images_than_itself():
    few = predictions(100)
    rates = []
    for is_across in (False, True):
        found = measure_unknowns(few, appoint_judges(few, calibrate(few), is_across=is_across))
        rates.append({row.method: row.false_alarms.value for row in found.scores})
    assert rates[0] == {"energy": 0.04, "max_softmax": 0.04}  # of 100 images, 5% are above the 96th
    assert rates[1] != rates[0]


def test_too_few_validation_images_are_told(unknown):
    found = measure_unknowns(
        predictions(), appoint_judges(predictions(), calibrate(predictions(18, seed=1))), unknown=unknown
    )
    assert found.notes()[0].startswith("false alarms of 5% take 19 validation images, and there were 18")
    assert all(row.false_alarms is None and row.found.value == 0 and row.auroc.value > 0 for row in found.scores)


def test_groups_widen_the_intervals(calibration, unknown):
    def repeated(predictions, groups):
        rows = np.repeat(np.arange(len(predictions.labels)), 6)
        names = np.array([f"{predictions.image_ids[0]} {row}" for row in rows]) if groups else None
        ids = tuple(f"{predictions.image_ids[0]}/{number}" for number in range(len(rows)))
        return Predictions(
            ids, predictions.labels[rows], predictions.logits[rows], None, None, predictions.embeddings[rows], names
        )

    known = [repeated(predictions(60), way) for way in (False, True)]
    alone, together = (
        measure_unknowns(few, appoint_judges(few, calibration), unknown=repeated(unknown, way))
        for few, way in zip(known, (False, True), strict=True)
    )
    for one, other in zip(alone.scores, together.scores, strict=True):
        assert other.auroc.value == pytest.approx(one.auroc.value)
        assert other.auroc.high - other.auroc.low > 1.8 * (one.auroc.high - one.auroc.low)


def test_what_is_found_has_the_interval_of_a_share(figures, calibration, unknown):
    for row in figures.scores:
        new = calibration.unknown_scores(unknown.logits, unknown.embeddings)[row.method]
        num_found = int((new > alarm_threshold(calibration.unknown[row.method], false_alarms=0.05)).sum())
        assert (row.found.low, row.found.high) == wilson_interval(num_found, 120)


@pytest.mark.parametrize(("centre", "ends"), [(4, (1, 0, 1)), (0, (0, 1, 0))])
def test_no_interval_is_a_point_where_all_or_none_are_found(calibration, centre, ends):
    """Unknown images that are all far from every class, or all at the middle of one."""
    embeddings = np.tile(CENTRES[centre], (40, 1)).astype(np.float32)
    ids = tuple(f"odd {row}" for row in range(40))
    odd = Predictions(ids, np.full(40, -1), embeddings @ CENTRES[:4].T.astype(np.float32), None, None, embeddings)
    row = measure_unknowns(predictions(), appoint_judges(predictions(), calibration), unknown=odd).scores[0]
    assert row.method == "distance"
    for figure, end in zip((row.auroc, row.passed, row.found), ends, strict=True):
        assert figure.value == pytest.approx(end, abs=0.02)
        assert figure.low <= figure.value <= figure.high
        assert 0.02 < figure.high - figure.low < 0.2


def test_without_calibration_there_is_nothing_to_tell():
    assert measure_unknowns(predictions(), None) is None


def test_the_table_and_json_hold_every_figure(figures):
    text = printed(figures)
    assert "distance: false alarms, 5% stated" in text
    assert "unknown that pass as 95% of known do" in text
    assert figures.notes()[0].startswith("120 images of classes held out of training stand for the unknown")
    values = json.loads(json.dumps(figures.to_dict()))
    assert values["scores"][0]["auroc"] == figures.scores[0].auroc._asdict()
    assert (values["stated"], values["num_unknown"], values["num_calibrating"]) == (0.05, 120, 400)
