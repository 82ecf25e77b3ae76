import json
import shutil
from dataclasses import replace

import pytest

from finevote.bundle.manifest import read_manifest
from finevote.bundle.read import load_bundle
from finevote.bundle.record import record_keep_rate
from finevote.errors import ArgumentError
from finevote.measure.evaluate import evaluate
from finevote.measure.opening import open_split
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder
from finevote.tune_speed import SpeedPoint, choose_rate, time_forwards, tune_speed
from tests.tiny import make_config, write_bundle, write_photographs, write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return write_run(root / "run", data=write_photographs(root / "data"))  # without a test split, which stays closed


@pytest.fixture
def finished(made, tmp_path):
    """Return a fresh copy of the run; its data lie where they were."""
    return shutil.copytree(made, tmp_path / "run")


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_counts_are_those_of_predictions_at_each_rate(finished):
    curve = tune_speed(finished, rates=[0.7, 0.4], dry_run=True)
    right = []
    for point in curve.points:
        predictor = Predictor.load(finished, keep_rate=point.keep_rate)
        source = open_split(RunFolder(finished), predictor.bundle, split="val", data=None)
        predictions = predictor.predict_records(source, "val")
        right.append(predictions.logits.argmax(1) == predictions.labels)
    assert [point.keep_rate for point in curve.points] == [1.0, 0.7, 0.4]
    assert [point.num_correct for point in curve.points] == [row.sum() for row in right]
    assert [point.num_lost for point in curve.points] == [(right[0] & ~row).sum() for row in right]
    assert [point.num_won for point in curve.points] == [(~right[0] & row).sum() for row in right]


def test_figures_at_each_rate_are_those_of_subjects_where_images_have_one(finished, monkeypatch):
    def open_as_one_subject(*args, **options):
        source = open_split(*args, **options)
        records = tuple(replace(record, group="the same bird") for record in source.splits["val"])
        return replace(source, splits={**source.splits, "val": records})

    alone = tune_speed(finished, rates=[0.4], dry_run=True)
    monkeypatch.setattr("finevote.tune_speed.open_split", open_as_one_subject)
    grouped = tune_speed(finished, rates=[0.4], dry_run=True)
    for one, other in zip(alone.points, grouped.points, strict=True):
        assert other.accuracy == one.accuracy
        assert other.high - other.low > 1.5 * (one.high - one.low)
        assert other.p_value == 1  # one subject tells nothing, whatever it says


def test_what_is_chosen_becomes_the_bundle_s_own(finished):
    weights = (finished / "bundle" / "model.safetensors").read_bytes()
    curve = tune_speed(finished, rates=[0.5], max_drop=100)
    bundle = load_bundle(finished / "bundle")  # checks every hash
    assert bundle.model.keep_rate == bundle.config.model.voting.keep_rate == curve.keep_rate
    assert bundle.manifest.details["keep_rate"]["max_drop"] == 100
    assert bundle.manifest.details["data"] == "colours"
    assert (finished / "bundle" / "model.safetensors").read_bytes() == weights
    assert json.loads((finished / "speed.json").read_text()) == json.loads(json.dumps(curve.to_dict()))
    assert (finished / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_dry_run_writes_nothing(finished):
    before = content_of(finished)
    tune_speed(finished, rates=[0.5], dry_run=True)
    assert content_of(finished) == before


def test_a_bundle_s_keep_rate_is_used_and_can_be_overruled(finished, run):
    record_keep_rate(finished / "bundle", 0.5, details={})
    assert Predictor.load(finished).model.keep_rate == evaluate(finished).keep_rate == 0.5
    assert Predictor.load(finished, keep_rate=1.0).model.keep_rate == 1.0
    code, out, _ = run("evaluate", finished, "--keep-rate", 0.8, "--json")
    assert code == 0
    assert json.loads(out)["keep_rate"] == 0.8
    assert json.loads((finished / "evaluation" / "val" / "report.json").read_text())["keep_rate"] == 0.8


def test_predict_takes_a_keep_rate(finished, run):
    photograph = json.loads((finished / "data.json").read_text())["data"] + "/val/blue/0.png"
    assert run("predict", finished, photograph, "--keep-rate", 0.5)[0] == 0
    code, _, err = run("predict", finished, photograph, "--keep-rate", 1.5)
    assert code == 2
    assert "keep_rate=1.5 must be above 0 and at most 1" in err


def test_the_command_prints_the_curve_and_says_what_was_chosen(finished, run):
    code, out, _ = run("tune-speed", finished, "--rates", "1,0.5", "--max-drop", 100)
    assert code == 0
    assert f"Keep rate {read_manifest(finished / 'bundle').config['model']['voting']['keep_rate']:g}:" in out
    code, _, err = run("tune-speed", finished, "--rates", "1,half")
    assert code == 2
    assert "--rates '1,half' must be numbers with commas between" in err


def test_the_curve_is_printed_where_it_cannot_be_written(finished, run):
    (finished / "speed.json").mkdir()
    before = content_of(finished)
    code, out, err = run("tune-speed", finished, "--rates", "1,0.5")
    assert (code, "cannot write" in err) == (2, True)
    assert "Keep rate" in out
    assert content_of(finished) == before


def test_a_plain_run_is_refused(finished):
    config = make_config()
    plain = config.model.model_copy(update={"voting": config.model.voting.model_copy(update={"enabled": False})})
    write_bundle(finished / "bundle", config=config.model_copy(update={"model": plain}))
    with pytest.raises(ArgumentError, match="is a plain backbone, without votes to rank patches by"):
        tune_speed(finished)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": [0.5, 1.2]}, r"keep_rate=1.2 must be above 0 and at most 1"),
        ({"max_drop": -1.0}, r"max_drop=-1 must be 0 or more points"),
    ],
)
def test_numbers_out_of_range_are_refused(finished, options, message):
    with pytest.raises(ArgumentError, match=message):
        tune_speed(finished, **options)


def point(rate, num_correct, time_ratio):
    return SpeedPoint(rate, num_correct, num_correct / 1000, 0.0, 1.0, 0, 0, 1.0, time_ratio, time_ratio)


@pytest.mark.parametrize(("max_drop", "expected"), [(0.0, 0.9), (0.1, 0.9), (0.2, 0.7), (0.5, 0.5), (9.0, 0.5)])
def test_the_fastest_within_the_tolerance_is_chosen(max_drop, expected):
    points = [point(1.0, 950, 1.0), point(0.9, 951, 0.9), point(0.7, 948, 0.6), point(0.5, 945, 0.4)]
    points.append(point(0.4, 945, 0.45))  # fewer patches, but slower
    assert choose_rate(points, max_drop=max_drop) == expected


def test_a_saving_within_the_noise_of_the_clock_is_not_chosen():
    assert choose_rate([point(1.0, 950, 1.0), point(0.5, 950, 0.99)], max_drop=1.0) == 1.0


def test_timed_calls_take_turns():
    calls = []
    seconds = time_forwards([lambda: calls.append("a"), lambda: calls.append("b")], num_rounds=3)
    assert calls == ["a", "b"] * 4
    assert seconds.shape == (2, 3)
    assert (seconds >= 0).all()
