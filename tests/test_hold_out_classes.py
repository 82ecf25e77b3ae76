"""Classes held out of training: what stands for the unknown, from `fit` to `evaluate` and `predict`."""

import json
import shutil

import numpy as np
import pytest

from finevote.bundle.read import load_bundle
from finevote.cli_options import hold_out_setting
from finevote.config import dump_config
from finevote.data.subset import some_of_each_class
from finevote.errors import DataError
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.predictions import load_predictions
from finevote.measure.evaluate import evaluate
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder
from finevote.training.fit import fit
from finevote.training.prepare import load_data
from finevote.types import Record
from tests.tiny import make_config, write_photographs
from tests.training.helpers import changed, tiny_config


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    config = changed(changed(make_config(), "data", hold_out_classes=("green",)), "training", batch_size=4)
    return fit(config, write_photographs(root / "data", num_test=4), out=root / "run")


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def test_a_run_knows_its_classes_and_those_held_out(finished):
    assert load_bundle(finished / "bundle").class_names == ("blue", "red")
    saved = json.loads((finished / "data.json").read_text())
    assert (saved["class_names"], saved["held_out_classes"]) == (["blue", "red"], ["green"])
    splits = json.loads((finished / "split.json").read_text())
    assert not any("green" in image_id for ids in splits["splits"].values() for image_id in ids)
    assert splits["unknown"] == {"val": ["val/green/0.png", "val/green/1.png", "val/green/2.png"]}


def test_a_training_that_goes_on_is_without_them_too(finished):
    source = load_data(RunFolder(finished))
    assert source.class_names == ("blue", "red")
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 12, "val": 6}
    assert {record.label for record in source.splits["train"]} == {0, 1}


@pytest.mark.parametrize(("split", "num_unknown"), [("val", 3), ("test", 4)])
def test_evaluate_predicts_the_unknown_images_too_and_needs_none_again(finished, split, num_unknown):
    report = evaluate(finished, split=split)
    figures = report.sections["unknown"]
    assert (report.num_classes, figures.num_unknown, figures.num_calibrating) == (2, num_unknown, 6)
    assert [row.method for row in figures.scores] == ["distance", "energy", "max_softmax"]
    unknown, _ = load_predictions(finished / "evaluation" / split / "unknown.npz")
    assert {image_id.split("/")[:2] == [split, "green"] for image_id in unknown.image_ids} == {True}
    assert (unknown.labels == -1).all()
    again = evaluate(finished, split=split, saved=True).sections["unknown"]
    assert again.to_dict() == figures.to_dict()


def test_class_means_are_of_training_images(finished):
    calibration = load_bundle(finished / "bundle").calibration
    assert calibration.class_means.shape == (2, 24)
    assert np.linalg.norm(calibration.class_means, axis=1) == pytest.approx([1, 1])
    assert calibration.unknown["distance"].shape == (6,)


def test_data_of_other_classes_is_still_refused(finished, tmp_path):
    data = write_photographs(tmp_path / "other")
    for split in ("train", "val"):
        (data / split / "red").rename(data / split / "pink")
    with pytest.raises(DataError, match="2 classes that are not the 2 of"):
        evaluate(finished, data=data)


def test_predict_says_none_of_the_classes_on_the_command_line(finished, run, tmp_path):
    photograph = json.loads((finished / "data.json").read_text())["data"] + "/test/green/0.png"
    assert run("predict", finished, photograph, "--false-alarms", 0.05)[2] == (
        "error: false alarms of 0.05 take 19 validation images, and the bundle has seen 6, one of each subject: ask "
        "for 0.14 or more\n"
    )
    predictor = Predictor.load(finished)
    rate = next(rate for rate in np.linspace(0.15, 0.99, 99) if says_unknown(predictor, photograph, rate))
    out = tmp_path / "out.csv"
    options = ("--false-alarms", rate, "--unknown-by", "energy")
    assert run("predict", finished, photograph, *options, "--out", out)[0] == 0
    assert out.read_text().splitlines()[0] == "image,answer,kind,class_1,probability_1,class_2,probability_2"
    assert ",none of the classes,unknown," in out.read_text()
    assert run("predict", finished, photograph, *options, "--out", tmp_path / "out.jsonl")[0] == 0
    line = json.loads((tmp_path / "out.jsonl").read_text())
    assert (line["answer"], line["kind"], len(line["top"])) == ("none of the classes", "unknown", 2)
    assert "none of the classes" in run("predict", finished, photograph, *options)[1]


def says_unknown(predictor, photograph, rate):
    return predictor.predict(photograph, rule=AnswerRule(float(rate), "energy")).answer.kind == "unknown"


@pytest.mark.parametrize(
    ("given", "expected"), [("3", 3), ("green", ["green"]), ("red, deep green", ["red", "deep green"])]
)
def test_an_option_names_classes_or_how_many(given, expected):
    name, _, value = hold_out_setting(given)[0].partition("=")
    assert (name, json.loads(value)) == ("data.hold_out_classes", expected)
    assert hold_out_setting(None) == []


@pytest.mark.long
@pytest.mark.slow
def test_the_protocol_on_drawn_birds(run, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(dump_config(changed(tiny_config(epochs=1, batch_size=18), "data", resize=36)))
    out = tmp_path / "run"
    code, _, err = run("fit", "synthetic", "--recipe", recipe, "--hold-out-classes", 3, "--out", out)
    assert code == 0, err
    code, printed, err = run("evaluate", out, "--json")
    assert code == 0, err
    found = json.loads(printed)
    assert (found["num_classes"], found["unknown"]["num_unknown"]) == (9, 60)
    assert any(note.startswith("held out, to stand for the unknown: 3 classes") for note in found["notes"])
    for row in found["unknown"]["scores"]:
        assert row["false_alarms"]["low"] <= 0.05
        assert row["auroc"]["low"] < row["auroc"]["value"] < row["auroc"]["high"]
    assert "unknown that are found" in run("evaluate", out, "--saved")[1]


def test_images_of_a_class_are_taken_evenly():
    records = [Record(str(row), row % 3 // 2) for row in range(300)]
    chosen = some_of_each_class(records, most=10)
    assert [record.label for record in chosen].count(0) == [record.label for record in chosen].count(1) == 10
    rows = [int(record.image_id) for record in chosen if record.label == 1]
    assert set(np.diff(rows)) == {30}
    assert some_of_each_class(records[:5], most=10) == records[:5]
