import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from finevote.errors import ArgumentError
from finevote.evaluation import calibrator
from finevote.evaluation.calibrator import SetRule, appoint_judges, calibrate
from finevote.evaluation.metrics import softmax
from finevote.evaluation.rows import take_rows
from finevote.evaluation.trust import measure_trust
from finevote.measure.sections import find_sections
from finevote.types import Predictions


def predictions(num_images=400, *, num_classes=6, seed=0):
    """Return an overconfident model: labels are drawn from its logits at temperature 2."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (num_images, num_classes)).astype(np.float32)
    labels = (softmax(logits / 2).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return Predictions(tuple(f"{seed}-{row}" for row in range(num_images)), labels, logits)


def printed(trust):
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(trust.table())
    return console.file.getvalue()


@pytest.fixture(scope="module")
def calibration():
    return calibrate(predictions(seed=1))


@pytest.fixture(scope="module")
def trust(calibration):
    return measure_trust(predictions(), appoint_judges(predictions(), calibration))


def test_the_temperature_makes_new_images_believable(trust):
    assert trust.temperature == pytest.approx(2, rel=0.15)
    assert trust.after.calibration_error.high < trust.before.calibration_error.low
    assert trust.after.negative_log_likelihood.value < trust.before.negative_log_likelihood.value
    assert trust.after.brier.value < trust.before.brier.value


def test_every_figure_lies_in_reach_of_its_interval(trust):
    for version in (trust.before, trust.after):
        for figure in (version.brier, version.negative_log_likelihood):
            assert figure.low < figure.value < figure.high


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_sets_cover_new_images(trust, method):
    found = next(row for row in trust.sets if row.method == method and not row.each_class)
    assert found.coverage.high >= 0.95
    assert 1 < found.mean_size.low < found.mean_size.value < found.mean_size.high < 6
    interval = binomtest(round(found.coverage.value * 400), 400).proportion_ci(method="wilson")
    assert found.coverage[1:] == pytest.approx((interval.low, interval.high))


def test_sets_by_class_are_measured_where_classes_have_images_enough(calibration):
    trust = measure_trust(predictions(), appoint_judges(predictions(), calibration))
    assert [row.method for row in trust.sets if row.each_class] == ["lac", "aps", "raps"]
    assert trust.num_open_classes == 0
    held = calibration.sets(calibration.probabilities(predictions().logits), SetRule(0.95, "aps", each_class=True))
    assert trust.sets[4].mean_size.value == held.sum(axis=1).mean()
    assert trust.sets[4].coverage.value == held[np.arange(400), predictions().labels].mean()
    assert "\naps sets by class for 95%: cover" in printed(trust)


def test_classes_with_too_few_images_for_sets_by_class_are_counted():
    given = predictions(seed=1)
    few = take_rows(given, np.flatnonzero((given.labels > 1) | (np.arange(400) < 40)))  # of two classes
    trust = measure_trust(predictions(), appoint_judges(predictions(), calibrate(few)))
    assert trust.num_open_classes == 2
    assert (
        "sets by class (--each-class) for 95% always hold 2 classes: too few of the validation images"
        in trust.notes()[-1]
    )
    assert 2 < trust.sets[3].mean_size.value < 6
    judges = appoint_judges(predictions(60), calibrate(predictions(60)), is_across=True)
    across = measure_trust(predictions(60), judges)
    assert [row.each_class for row in across.sets] == [False] * 3
    assert "always hold 6 classes: too few of four fifths of the validation images show these" in across.notes()[-1]


def test_groups_widen_every_interval(calibration):
    found = predictions(100)
    repeated = Predictions(tuple(map(str, range(800))), np.repeat(found.labels, 8), np.repeat(found.logits, 8, axis=0))
    alone = measure_trust(repeated, appoint_judges(repeated, calibration))
    birds = replace(repeated, groups=np.repeat(np.arange(100), 8).astype(str))
    grouped = measure_trust(birds, appoint_judges(birds, calibration))
    for part in (lambda trust: trust.before.brier, lambda trust: trust.sets[0].coverage):
        assert part(grouped).value == pytest.approx(part(alone).value)
        assert part(grouped).high - part(grouped).low > 2 * (part(alone).high - part(alone).low)


def test_the_calibrating_split_is_judged_by_other_images_than_itself():
    few = predictions(20)
    itself, across = (measure_trust(few, appoint_judges(few, calibrate(few), is_across=way)) for way in (False, True))
    assert across.is_across
    assert across.after.negative_log_likelihood.value > itself.after.negative_log_likelihood.value


def test_images_of_a_group_never_judge_each_other():
    found = replace(predictions(60), groups=np.repeat([f"group {number}" for number in range(20)], 3))
    judged = appoint_judges(found, calibrate(found), is_across=True).parts
    assert sorted(np.concatenate([rows for rows, _ in judged])) == list(range(60))
    for rows, judge in judged:
        others = np.flatnonzero(~np.isin(found.groups, found.groups[rows]))
        assert judge.temperature == calibrate(take_rows(found, others)).temperature


def test_a_report_of_the_calibrating_split_calibrates_each_fifth_once(monkeypatch):
    found, calls = predictions(60), []
    calibration = calibrate(found)
    monkeypatch.setattr(
        calibrator, "calibrate", lambda *args, **options: calls.append(1) or calibrate(*args, **options)
    )
    find_sections(found, calibration, split="val")
    assert len(calls) == 5


def test_one_group_alone_is_judged_by_itself():
    found = predictions(60)
    alone = replace(found, groups=np.full(60, "group a"))
    ((rows, judge),) = appoint_judges(alone, calibrate(alone), is_across=True).parts
    assert len(rows) == 60
    assert judge.temperature == calibrate(found).temperature


def test_without_calibration_the_model_is_measured_as_it_is():
    trust = measure_trust(predictions(), None)
    assert (trust.after, trust.temperature, trust.sets) == (None, None, ())
    assert "calibrated" not in printed(trust)
    assert trust.notes()[0].startswith("not calibrated")


def test_the_table_shows_before_and_after_and_every_kind_of_set(trust):
    text = printed(trust)
    assert f"{trust.before.calibration_error.value:.1%}" in text
    assert f"{trust.after.calibration_error.value:.1%}" in text
    assert all(f"\n{method} sets for 95%: cover" in text for method in ("lac", "aps", "raps"))


@pytest.mark.parametrize(
    ("num_images", "words"),
    [
        (10, "10 images are too few for sets of 95%: they hold every class"),
        (60, r"the guarantee of 95% is weak.* one on 60 images covers between \d+.\d% and \d+.\d%"),
    ],
)
def test_a_weak_guarantee_is_told(num_images, words):
    judges = appoint_judges(predictions(), calibrate(predictions(num_images, seed=1)))
    notes = measure_trust(predictions(), judges).notes()
    assert any(re.search(words, note) for note in notes)


def test_of_many_images_no_weakness_is_told(trust):
    assert len(trust.notes()) == 1


def test_json_keeps_every_figure(trust):
    values = json.loads(json.dumps(trust.to_dict()))
    assert values["after"]["brier"] == trust.after.brier._asdict()
    assert values["before"]["bins"][0].keys() == {"num_images", "confidence", "accuracy"}
    assert [row["method"] for row in values["sets"]] == ["lac", "aps", "raps"] * 2
    assert [row["each_class"] for row in values["sets"]] == [False] * 3 + [True] * 3
    assert values["sets"][0]["coverage"].keys() == {"value", "low", "high"}


def test_sets_of_an_unknown_method_are_refused(calibration):
    with pytest.raises(ArgumentError, match="there are no sets by 'lca'"):
        calibration.sets(np.ones((1, 6)) / 6, SetRule(0.9, "lca"))
