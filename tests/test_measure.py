import io
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from finevote.bundle.manifest import read_manifest
from finevote.cli import app
from finevote.errors import ArgumentError, BundleError, DataError, RunError, StorageError
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.measure import examples, saved
from finevote.measure.evaluate import evaluate
from finevote.measure.examples import choose_examples, draw_examples
from finevote.measure.opening import enter_in_ledger
from finevote.measure.pointing import play, point
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder
from finevote.types import Box, Predictions, Preprocessing
from tests.tiny import make_config, write_bundle, write_photographs, write_run
from tests.training.helpers import changed


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = write_photographs(root / "data", num_test=4)
    return write_run(root / "run", data=data), data


@pytest.fixture
def run(made, tmp_path):
    """Return a fresh copy of the run; its data lie where they were."""
    return shutil.copytree(made[0], tmp_path / "run")


@pytest.fixture
def data(made, tmp_path):
    """Return a copy of the data elsewhere."""
    return shutil.copytree(made[1], tmp_path / "moved")


def printed(report):
    console = Console(width=200, file=io.StringIO())
    console.print(report.table())
    return console.file.getvalue()


def ledger(run):
    path = run / "test_ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_validation_is_measured_on_the_runs_own_split(run):
    report = evaluate(run, split="val")
    predictions, class_names = load_predictions(run / "evaluation" / "val" / "predictions.npz")
    assert sorted(predictions.image_ids) == sorted(json.loads((run / "split.json").read_text())["splits"]["val"])
    assert class_names == ("blue", "green", "red")
    assert report.num_images == 9
    assert report.top_1.value == (predictions.logits.argmax(1) == predictions.labels).mean()


def test_the_figures_are_written_beside_the_predictions(run):
    report = evaluate(run, split="val")
    assert json.loads((run / "evaluation" / "val" / "report.json").read_text()) == json.loads(
        json.dumps(report.to_dict())
    )
    assert (run / "evaluation" / "val" / "classes.csv").read_text() == report.class_table()


def test_predictions_are_those_of_the_bundle(run):
    evaluate(run, split="test")
    predictions, _ = load_predictions(run / "evaluation" / "test" / "predictions.npz")
    ranked = Predictor.load(run).predict(json.loads((run / "data.json").read_text())["data"] + "/test/blue/0.png")
    row = predictions.image_ids.index("test/blue/0.png")
    assert ranked.class_names[0] == ("blue", "green", "red")[predictions.logits[row].argmax()]


def test_validation_leaves_the_test_split_closed(run, data):
    shutil.rmtree(data / "test")
    evaluate(run, split="val", data=data)
    assert ledger(run) == []


def test_each_opening_of_the_test_split_is_entered_and_counted(run):
    assert [evaluate(run, split="test").num_test_openings for _ in range(2)] == [1, 2]
    sha256 = json.loads((run / "bundle" / "bundle.json").read_text())["sha256"]
    assert [(entry["bundle_sha256"], entry["num_images"]) for entry in ledger(run)] == [(sha256, 12)] * 2
    assert ledger(run)[0]["time"].endswith("+00:00")


def test_lines_of_the_ledger_that_cannot_be_read_count_as_openings_and_are_told(run):
    evaluate(run, split="test")
    with (run / "test_ledger.jsonl").open("ab") as file:
        file.write(b"{half a line\n\xff\xfe\n[1]")
    report = evaluate(run, split="test")
    assert (report.num_test_openings, report.num_unread_openings) == (5, 3)
    assert "3 lines of the ledger could not be read and count as openings" in printed(report)
    assert (run / "test_ledger.jsonl").read_bytes().splitlines()[1:4] == [b"{half a line", b"\xff\xfe", b"[1]"]
    again = evaluate(run, split="test", saved=True)
    assert (again.num_test_openings, again.num_unread_openings) == (5, 3)


def test_a_ledger_that_can_be_read_needs_no_words(run):
    report = evaluate(run, split="test")
    assert report.num_unread_openings == 0
    assert "could not be read" not in printed(report)


def test_openings_of_two_processes_at_once_are_all_entered(run):
    manifest, folder = read_manifest(run / "bundle"), RunFolder(run)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: enter_in_ledger(folder, manifest).num, range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert len(ledger(run)) == 24


def test_answers_that_are_no_numbers_are_counted_and_refused(run):
    evaluate(run, split="val")
    saved, names = load_predictions(run / "evaluation" / "val" / "predictions.npz")
    saved.logits[2:4, 1] = np.nan
    save_predictions(run / "evaluation" / "val" / "predictions.npz", saved, names)
    with pytest.raises(ArgumentError, match="2 of 9 images have a logit that is not finite: the model diverged"):
        evaluate(run, split="val", saved=True)


def test_the_data_may_have_moved(run, data):
    assert evaluate(run, split="val", data=data).data == str(data)


def test_a_validation_split_made_of_training_images_is_divided_as_it_was(tmp_path):
    data = write_photographs(tmp_path / "data") / "train"  # class folders without splits
    run = write_run(tmp_path / "run", data=data)
    evaluate(run)
    held_out = json.loads((run / "split.json").read_text())["splits"]["val"]
    assert list(load_predictions(run / "evaluation" / "val" / "predictions.npz")[0].image_ids) == held_out


def test_images_that_the_run_left_out_are_left_out_of_the_measurement(tmp_path):
    data = write_photographs(tmp_path / "data")
    (data / "val" / "red" / "0.png").write_bytes(b"broken")
    assert evaluate(write_run(tmp_path / "run", data=data), split="val").num_images == 8


def test_test_images_that_cannot_be_read_are_left_out_and_reported(run, data):
    (data / "test" / "red" / "0.png").write_bytes(b"broken")
    report = evaluate(run, split="test", data=data)
    assert report.num_images == 11
    assert list(report.skipped) == ["test/red/0.png"]


def test_test_images_whose_file_the_run_was_fitted_to_or_chosen_on_are_reported(run, data):
    for number, original in enumerate(("train/red/0.png", "val/blue/1.png")):
        shutil.copy(data / original, data / "test" / "red" / f"copy{number}.png")
    report = evaluate(run, split="test", data=data)
    copies = {"test/red/copy0.png": "train/red/0.png", "test/red/copy1.png": "val/blue/1.png"}
    assert copies.items() <= report.seen.items()
    assert all((data / again).read_bytes() == (data / first).read_bytes() for again, first in report.seen.items())
    predictions, _ = load_predictions(run / "evaluation" / "test" / "predictions.npz")
    kept = [image_id not in report.seen for image_id in predictions.image_ids]
    is_right = predictions.logits.argmax(1) == predictions.labels
    assert report.top_1_unseen.value == is_right[kept].mean()
    assert (report.num_images, sum(kept)) == (14, 14 - len(report.seen))


def test_validation_images_whose_file_is_in_train_are_reported(tmp_path):
    data = write_photographs(tmp_path / "data")
    shutil.copy(data / "train" / "red" / "0.png", data / "val" / "red" / "copy.png")
    report = evaluate(write_run(tmp_path / "run", data=data))
    assert report.seen == {"val/red/copy.png": "train/red/0.png"}


def test_without_the_training_images_nothing_is_said_of_copies(run, data):
    (data / "train" / "red" / "0.png").unlink()
    assert evaluate(run, split="test", data=data).seen is None


def test_a_data_set_without_a_test_split_is_refused_before_the_ledger(run, data):
    shutil.rmtree(data / "test")
    with pytest.raises(DataError, match=r"has no test images.*evaluate on the validation split"):
        evaluate(run, split="test", data=data)
    assert ledger(run) == []


def test_data_of_other_classes_are_refused(run, data):
    for split in ("train", "val", "test"):
        (data / split / "red").rename(data / split / "yellow")
    with pytest.raises(DataError, match=r"3 classes that are not the 3 of .*run: give the data that it was fitted to"):
        evaluate(run, split="val", data=data)


def test_missing_validation_images_are_named(run, data):
    (data / "val" / "red" / "0.png").unlink()
    with pytest.raises(DataError, match=r"lacks 1 image: val/red/0\.png of the run's split"):
        evaluate(run, split="val", data=data)


def test_the_training_split_is_not_offered(run):
    with pytest.raises(ArgumentError, match="cannot measure on the split 'train'; allowed: test, val"):
        evaluate(run, split="train")


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is not a run of finevote"):
        evaluate(tmp_path)


def test_a_run_that_is_not_finished_is_refused(run):
    shutil.rmtree(run / "bundle")
    with pytest.raises(BundleError, match="has no bundle yet"):
        evaluate(run)


def test_figures_are_handed_out_before_a_run_that_cannot_be_written_is_an_error(run):
    (run / "evaluation").write_text("in the way")
    reports = []
    with pytest.raises(StorageError, match="evaluation"):
        evaluate(run, on_report=reports.append)
    assert reports[0].split == "val"


def test_of_few_images_none_is_said_to_be_drawn_at_random(run, monkeypatch):
    subtitles = []
    monkeypatch.setattr(examples, "example_grid", lambda *_, subtitle, **__: subtitles.append(subtitle) or Figure())
    draw_examples(run, split="test")
    monkeypatch.setattr(examples, "_NUM_EXAMPLES", 2)
    monkeypatch.setattr(examples, "_NUM_OF_EACH", 1)
    draw_examples(run, split="test")
    assert ["drawn at random" in subtitle for subtitle in subtitles] == [False, True]


def test_examples_are_drawn_from_the_measurement_that_is_there(run):
    evaluate(run, split="test")
    path = draw_examples(run, split="test")
    assert len(ledger(run)) == 1
    with Image.open(path) as image:
        assert image.width > 1000


def test_examples_of_a_newer_bundle_are_measured_anew(run):
    evaluate(run, split="test")
    write_bundle(run / "bundle", config=changed(make_config(), "training", seed=1))
    draw_examples(run, split="test")
    assert len(ledger(run)) == 2


def outcome(num_right, num_wrong):
    labels = np.zeros(num_right + num_wrong, np.int64)
    logits = np.array([[1, 0]] * num_right + [[0, 1]] * num_wrong, np.float32)
    return Predictions(tuple(map(str, range(len(labels)))), labels, logits)


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "expected"),
    [
        (100, 100, (6, 6)),
        (1000, 1, (11, 1)),
        (1000, 10, (8, 4)),
        (10, 1000, (4, 8)),
        (3, 2, (3, 2)),
        (0, 20, (0, 12)),
        (20, 0, (12, 0)),
        (1, 20, (1, 11)),
    ],
)
def test_examples_mix_right_and_wrong_as_the_split_does_but_show_some_of_each(num_right, num_wrong, expected):
    rows = choose_examples(outcome(num_right, num_wrong))
    is_right = [row < num_right for row in rows]
    assert (sum(is_right), len(rows) - sum(is_right)) == expected
    assert is_right == sorted(is_right, reverse=True)
    assert len(set(rows)) == len(rows)


def test_votes_are_pointed_at_the_parts_in_the_models_view():
    crop = Preprocessing(image_size=(32, 32), resize=(64, 64), mean=(0, 0, 0), std=(1, 1, 1))
    boxes = [[Box("beak", 0.25, 0.25, 0.5, 0.5)], []]
    votes = np.array([[3, 1, 0, 0], [1, 1, 1, 1]], np.float32)
    predictions = Predictions(("a", "b"), np.zeros(2, np.int64), np.zeros((2, 2), np.float32), votes, (2, 2))
    assert point(predictions, boxes, crop) == (0.75, 0.25, 3.0, 1)


def test_the_most_voted_patch_is_pointed_at_the_parts_in_the_models_view():
    crop = Preprocessing(image_size=(32, 32), resize=(64, 64), mean=(0, 0, 0), std=(1, 1, 1))
    boxes = [[Box("beak", 0.25, 0.25, 0.5, 0.5)], [Box("beak", 0.25, 0.25, 0.5, 0.5)], []]
    labels, most_voted = np.zeros(3, np.int64), np.array([0, 3, 0])
    predictions = Predictions(("a", "b", "c"), labels, np.zeros((3, 2), np.float32), grid=(2, 2), most_voted=most_voted)
    found = play(predictions, boxes, crop)
    assert (found.hit_share, found.area_share, found.lift, found.num_images) == (0.5, 0.25, 2.0, 2)


def test_there_is_nothing_to_point_with_in_a_plain_backbone():
    nothing = outcome(1, 1), [], Preprocessing((1, 1), (1, 1), (0, 0, 0), (1, 1, 1))
    assert point(*nothing) is None
    assert play(*nothing) is None


class TestSaved:
    def test_figures_are_computed_anew_without_images_or_a_look_at_the_test_split(self, run, data):
        first = evaluate(run, split="test", data=data)
        shutil.rmtree(data)
        again = evaluate(run, split="test", saved=True)
        assert again.to_dict() == first.to_dict()
        assert len(ledger(run)) == 1

    def test_data_that_would_not_be_opened_are_refused(self, made):
        done = CliRunner().invoke(app, ["evaluate", str(made[0]), "--saved", "--data", str(made[1])])
        assert "--saved opens no image: leave out --data" in str(done.exception)

    def test_no_model_is_built(self, run, monkeypatch):
        first = evaluate(run)
        monkeypatch.setattr("finevote.bundle.read.build_model", None)
        assert evaluate(run, saved=True).to_dict() == first.to_dict()

    def test_a_bundle_that_was_changed_is_refused(self, run):
        evaluate(run)
        path = run / "bundle" / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(BundleError, match=r"model\.safetensors has [\d,]+ bytes instead of"):
            evaluate(run, saved=True)

    def test_there_must_be_something(self, run):
        with pytest.raises(RunError, match=r"nothing is saved of the val split.*measure it again: finevote evaluate"):
            evaluate(run, saved=True)

    def test_other_weights_or_another_keep_rate_are_refused(self, run):
        evaluate(run)
        with pytest.raises(RunError, match=r"by other weights or at keep rate 1, not 0\.5"):
            evaluate(run, saved=True, keep_rate=0.5)
        write_bundle(run / "bundle", config=changed(make_config(), "training", seed=1))
        with pytest.raises(RunError, match="by other weights"):
            evaluate(run, saved=True)

    def test_a_report_that_is_none_is_refused(self, run):
        evaluate(run)
        (run / "evaluation" / "val" / "report.json").write_text('{"run": "one"}')
        with pytest.raises(RunError, match=r"report\.json is not a report of this finevote"):
            evaluate(run, saved=True)

    @pytest.mark.parametrize("name", ["report.json", "predictions.npz", "probes.npz", "unknown.npz"])
    def test_what_is_broken_is_named_with_the_command_that_makes_it_again(self, run, name):
        evaluate(run)
        (run / "evaluation" / "val" / name).write_bytes(b"broken")
        with pytest.raises(RunError, match=rf"{name} .*: measure it again: finevote evaluate {run} --split val$"):
            evaluate(run, saved=True)
        assert evaluate(run).num_images == 9

    def test_a_report_does_not_vouch_for_predictions_at_another_keep_rate(self, run, monkeypatch):
        evaluate(run)
        monkeypatch.setattr(saved, "atomic_write", fail)  # after the predictions, before the report
        with pytest.raises(StorageError):
            evaluate(run, keep_rate=0.5)
        with pytest.raises(RunError, match="nothing is saved of the val split"):
            evaluate(run, saved=True)

    def test_a_measurement_that_fails_halfway_leaves_the_same_one_of_before(self, run, monkeypatch):
        before = evaluate(run)
        monkeypatch.setattr(saved, "atomic_write", fail)
        with pytest.raises(StorageError):
            evaluate(run)
        monkeypatch.undo()
        assert evaluate(run, saved=True).to_dict() == before.to_dict()


def fail(path, *_):
    raise StorageError(f"cannot write {path}")
