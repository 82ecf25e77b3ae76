"""`evaluate --faithfulness`: measured, kept while it holds, and left out where it does not."""

import io
import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from finevote.errors import ArgumentError, RunError
from finevote.evaluation.faithfulness import load_curves
from finevote.evaluation.predictions import load_predictions
from finevote.measure import evaluate as measuring
from finevote.measure.evaluate import evaluate
from finevote.measure.faithfulness import draw_evenly
from finevote.types import Record
from tests.tiny import make_config, write_bundle, write_photographs, write_run
from tests.training.helpers import changed


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run with a measurement of all nine validation images."""
    root = tmp_path_factory.mktemp("measured")
    data = write_photographs(root / "data", num_test=4)
    folder = write_run(root / "run", data=data)
    evaluate(folder, faithfulness=200)
    return folder, data


@pytest.fixture
def folder(measured, tmp_path):
    return shutil.copytree(measured[0], tmp_path / "run")


def files(folder, split="val"):
    return folder / "evaluation" / split


def section_of(report):
    return report.to_dict().get("faithfulness")


def test_every_image_of_a_small_split_is_followed_and_drawn(folder):
    curves = load_curves(files(folder) / "faithfulness.npz")
    predictions, _ = load_predictions(files(folder) / "predictions.npz")
    assert curves.image_ids == predictions.image_ids
    probabilities = np.exp(predictions.logits) / np.exp(predictions.logits).sum(1, keepdims=True)
    np.testing.assert_allclose(curves.deletion[:, 0, 0], probabilities.max(1), atol=1e-5)
    np.testing.assert_allclose(curves.insertion[:, :, -1], np.stack([probabilities.max(1)] * 3, 1), atol=1e-5)
    with Image.open(files(folder) / "faithfulness.png") as image:
        assert image.width > 1000
    found = json.loads((files(folder) / "report.json").read_text())["faithfulness"]
    assert (found["num_images"], found["num_steps"], found["num_draws"]) == (9, 16, 3)
    assert [curve["order"] for curve in found["curves"]] == ["votes", "random", "rollout"] * 2


def test_the_report_tells_people(folder):
    console = Console(width=250, file=io.StringIO())
    console.print(evaluate(folder, saved=True).table())
    told = console.file.getvalue()
    assert "faithfulness, patches by" in told
    assert "faithfulness of 9 of the split's 9 images" in told
    assert "votes \N{MINUS SIGN} rollout" in told


def test_saved_curves_give_the_same_figures_and_no_model_runs(folder, monkeypatch):
    before = json.loads((files(folder) / "report.json").read_text())["faithfulness"]
    monkeypatch.setattr("finevote.bundle.read.build_model", None)
    assert json.loads(json.dumps(section_of(evaluate(folder, saved=True)))) == before


def test_a_measurement_without_it_keeps_that_of_the_same_weights(folder):
    before = section_of(evaluate(folder, saved=True))
    assert section_of(evaluate(folder)) == before
    assert load_curves(files(folder) / "faithfulness.npz").num_draws == 3


@pytest.mark.parametrize("change", ["weights", "keep rate"])
def test_of_another_model_nothing_is_kept(folder, change):
    if change == "weights":
        write_bundle(folder / "bundle", config=changed(make_config(), "training", seed=1))
    report = evaluate(folder, keep_rate=0.5 if change == "keep rate" else None)
    assert section_of(report) is None
    assert not (files(folder) / "faithfulness.npz").exists()
    assert not (files(folder) / "faithfulness.png").exists()


def test_of_other_images_nothing_is_kept(measured, folder, tmp_path):
    data = shutil.copytree(measured[1], tmp_path / "moved")
    (data / "test" / "red" / "0.png").unlink()
    evaluate(folder, split="test", data=measured[1], faithfulness=12)
    assert section_of(evaluate(folder, split="test", data=data)) is None


def test_a_broken_file_stops_saved_figures_and_is_left_out_of_new_ones(folder, caplog):
    (files(folder) / "faithfulness.npz").write_bytes(b"broken")
    with pytest.raises(RunError, match=rf"measure it again: finevote evaluate {folder} --split val --faithfulness$"):
        evaluate(folder, saved=True)
    with caplog.at_level(logging.WARNING):
        assert section_of(evaluate(folder)) is None
    assert "left out of the report: cannot read the deletion and insertion curves" in caplog.text


def test_what_was_predicted_is_kept_if_the_long_part_is_stopped(folder, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    shutil.rmtree(folder / "evaluation")
    monkeypatch.setattr(measuring, "follow_split", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, faithfulness=4)
    assert evaluate(folder, saved=True).num_images == 9


def test_one_look_at_the_test_split_is_one_entry(folder):
    evaluate(folder, split="test", faithfulness=5)
    assert len((folder / "test_ledger.jsonl").read_text().splitlines()) == 1
    assert len(load_curves(files(folder, "test") / "faithfulness.npz").image_ids) == 5


def test_a_plain_backbone_has_rollout_and_random(tmp_path, measured):
    folder = write_run(tmp_path / "run", data=measured[1])
    config = make_config()
    voting = config.model.voting.model_copy(update={"enabled": False})
    write_bundle(folder / "bundle", config=changed(config, "model", voting=voting))
    found = section_of(evaluate(folder, faithfulness=4))
    assert {curve["order"] for curve in found["curves"]} == {"random", "rollout"}
    assert {(row["order"], row["versus"]) for row in found["differences"]} == {("rollout", "random")}


@pytest.mark.parametrize("number", [0, -3])
def test_no_images_are_refused_before_anything_is_looked_at(folder, number):
    with pytest.raises(ArgumentError, match=f"the faithfulness of {number} images cannot be measured: give 1 or more"):
        evaluate(folder, split="test", faithfulness=number)
    assert not (folder / "test_ledger.jsonl").exists()


class TestCommand:
    def test_the_number_of_images_is_passed_on_and_told(self, folder, run):
        code, out, err = run("evaluate", folder, "--faithfulness", "--faithfulness-images", 4)
        assert code == 0
        assert "faithfulness: 4 of 9 images, 152 views of each" in err
        assert "faithfulness of 4 of the split's 9 images" in " ".join(out.split())

    def test_a_number_without_the_wish_is_refused(self, folder, run):
        code, _, err = run("evaluate", folder, "--faithfulness-images", 4)
        assert code == 2
        assert "--faithfulness-images is of use with --faithfulness only: add that" in err

    def test_saved_figures_make_no_curves(self, folder, run):
        code, _, err = run("evaluate", folder, "--saved", "--faithfulness")
        assert code == 2
        assert "--saved runs no model: leave out --faithfulness" in err


class TestDrawing:
    RECORDS = tuple(Record(image_id=str(row), label=row % 3 if row < 60 else 2) for row in range(90))

    def test_each_class_has_its_share(self):
        drawn = draw_evenly(self.RECORDS, num_images=30)
        labels = [record.label for record in drawn]
        assert len(set(drawn)) == 30
        assert sorted(drawn, key=lambda record: int(record.image_id)) == list(drawn)
        counts = np.bincount(labels)
        assert np.abs(counts - np.array([20, 20, 50]) / 3).max() <= 1

    def test_the_same_are_drawn_each_time_and_others_by_another_seed(self):
        assert draw_evenly(self.RECORDS, num_images=7) == draw_evenly(self.RECORDS, num_images=7)
        assert draw_evenly(self.RECORDS, num_images=7) != draw_evenly(self.RECORDS, num_images=7, seed=1)

    def test_there_are_no_more_than_there_are(self):
        assert draw_evenly(self.RECORDS, num_images=500) == self.RECORDS
