"""What a number was trained and chosen on: kept in the run, printed beside it, and the way without validation."""

import json
import shutil

import pytest

from finevote.bundle.read import load_bundle
from finevote.data.catalogue import DATASETS
from finevote.errors import DataError
from finevote.measure.evaluate import evaluate
from finevote.measure.examples import draw_examples
from finevote.run_folder import RunFolder
from finevote.training import loop
from finevote.training.fit import fit, resume
from tests.data.miniatures import make_miniature
from tests.tiny import write_photographs
from tests.training.helpers import assert_same_state, changed, final_state, tiny_config

WHOLE = "trained on 18 images, kept after the last epoch, without validation"


def config_without_validation(**training):
    return changed(tiny_config(epochs=2, **training), "data", validation_fraction=0.0)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = write_photographs(tmp_path_factory.mktemp("data") / "colours", num_test=2)
    shutil.rmtree(root / "val")
    return root


@pytest.fixture(scope="module")
def unvalidated(photographs, tmp_path_factory):
    return RunFolder(fit(config_without_validation(), photographs, out=tmp_path_factory.mktemp("runs") / "whole"))


def test_without_validation_every_image_is_trained_on_and_the_run_says_so(unvalidated):
    divided = json.loads(unvalidated.split_json.read_text())
    assert {split: len(ids) for split, ids in divided["splits"].items()} == {"train": 18}
    assert "no validation: all 18 training images are trained on and the last epoch is kept" in divided["notes"]
    assert json.loads(unvalidated.data_json.read_text())["setting"] == WHOLE


def test_without_validation_the_bundle_is_the_last_epochs_averaged_model(unvalidated):
    bundle = load_bundle(unvalidated.bundle)
    assert bundle.manifest.details["best_epoch"] == 2
    assert bundle.manifest.details["setting"] == WHOLE
    assert "val_top1" not in bundle.manifest.details
    assert_same_state(dict(bundle.model.state_dict()), dict(final_state(unvalidated.path)["average"]["model"]))


def test_without_validation_the_test_split_is_measured_and_validation_is_not(unvalidated, tmp_path):
    run = shutil.copytree(unvalidated.path, tmp_path / "run")
    for measured in (evaluate, draw_examples):
        with pytest.raises(DataError, match=r"trained without validation: only its test split .* --split test"):
            measured(run, split="val")
    report = evaluate(run, split="test")
    assert (report.num_images, report.setting, report.protocol) == (6, WHOLE, None)
    assert draw_examples(run, split="test").is_file()


def test_without_validation_a_stopped_run_goes_on_to_the_same_bits(photographs, unvalidated, tmp_path, monkeypatch):
    take_step = loop.Training._take_step

    def take_step_or_stop(training, batch):
        if training.num_steps_done == 4:
            raise KeyboardInterrupt
        return take_step(training, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Training, "_take_step", take_step_or_stop)
        with pytest.raises(KeyboardInterrupt):
            fit(config_without_validation(), photographs, out=tmp_path / "run")
    assert not RunFolder(tmp_path / "run").best_checkpoint.exists()
    resume(tmp_path / "run")
    assert_same_state(final_state(tmp_path / "run"), final_state(unvalidated.path), ignored={"images_per_s", "seconds"})


def test_a_run_that_finished_its_epochs_without_validation_only_lacks_its_bundle(unvalidated, tmp_path):
    run = RunFolder(shutil.copytree(unvalidated.path, tmp_path / "run"))
    shutil.rmtree(run.bundle)
    resume(run.path)
    assert load_bundle(run.bundle).manifest.details["best_epoch"] == 2


@pytest.fixture
def aircraft(tmp_path, monkeypatch):
    made = make_miniature("aircraft", tmp_path / "aircraft")
    monkeypatch.setitem(DATASETS, "aircraft", made.info)
    return f"aircraft@{made.tree}"


@pytest.mark.parametrize(
    ("data", "setting"),
    [
        ({}, "protocol official: trained on 8 images, epoch chosen on 8 of validation"),
        ({"protocol": "trainval"}, "protocol trainval: trained on 12 images, epoch chosen on 4 held out of training"),
        (
            {"protocol": "trainval", "validation_fraction": 0.0},
            "protocol trainval: trained on 16 images, kept after the last epoch, without validation",
        ),
    ],
    ids=["official", "trainval-held-out", "trainval-whole"],
)
def test_the_protocol_is_kept_in_the_run_and_stands_beside_its_numbers(aircraft, tmp_path, capsys, data, setting):
    run = RunFolder(fit(changed(tiny_config(epochs=1), "data", **data), aircraft, out=tmp_path / "run"))
    assert capsys.readouterr().out.count(setting) == 2  # before training and beside the result
    protocol = data.get("protocol", "official")
    saved = json.loads(run.data_json.read_text())
    assert (saved["data"], saved["protocol"], saved["setting"]) == (aircraft, protocol, setting)
    assert json.loads(run.split_json.read_text())["protocol"] == protocol
    assert json.loads((run.bundle / "bundle.json").read_text())["details"]["protocol"] == protocol
    report = evaluate(run.path, split="test")
    assert (report.protocol, report.setting, report.num_images) == (protocol, setting, 4)
    assert json.loads((run.path / "evaluation" / "test" / "report.json").read_text())["protocol"] == protocol


def test_a_run_is_measured_on_the_same_set_at_a_path_and_on_other_photographs_of_its_classes(aircraft, tmp_path):
    config = changed(tiny_config(epochs=1), "data", protocol="trainval", validation_fraction=0.0)
    run = fit(config, aircraft, out=tmp_path / "run")
    published = aircraft.partition("@")[2]
    assert evaluate(run, split="test", data=published).protocol == "trainval"
    for name in ("707-320", "737-700", "DC-3"):
        for split in ("train", "test"):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
    with pytest.raises(DataError, match="holds no class folders with images"):
        evaluate(run, split="test", data=tmp_path / "mine")
