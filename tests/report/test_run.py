"""`finevote report` on runs: what it measures, writes and refuses."""

import html
import json
import re
import shutil

import numpy as np
import pytest

from finevote.bundle.gallery import read_gallery
from finevote.data.known_leaks import KnownLeaks, keep_leaks
from finevote.errors import DataError, RunError, StorageError
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.measure.evaluate import evaluate
from finevote.report.choose import choose_mistakes
from finevote.report.compared import short_names, write_comparison
from finevote.report.contrasts import explain_mistakes
from finevote.report.material import gather, pairs_of
from finevote.report.provenance import commands
from finevote.report.run import make_page, write_report
from finevote.types import Predictions
from tests.tiny import CLASSES, write_photographs, write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = write_photographs(root / "data", num_test=4)
    write_run(root / "run", data=data)
    evaluate(root / "run")
    return root / "run", data


@pytest.fixture
def copy(made, tmp_path):
    """Return a fresh copy of the run, measured on validation; its data lie where they were."""
    return shutil.copytree(made[0], tmp_path / "one")


def ledger(run):
    path = run / "test_ledger.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_the_page_is_written_into_the_run_and_says_what_the_report_says(copy):
    written = write_report(copy)
    text = written.path.read_text()
    top_1 = json.loads((copy / "evaluation" / "val" / "report.json").read_text())["top_1"]
    assert written.path == copy / "report.html"
    assert written.num_bytes == written.path.stat().st_size
    assert f'<p class="hero-value">{top_1["value"]:.1%}</p>' in text
    pictures = re.findall(r'src="(data:image/jpeg[^"]+)"', text)
    assert len(set(pictures)) == len(pictures) >= 9  # every validation image once, and grey copies of mistakes


def test_a_mistake_is_shown_with_what_speaks_for_either_class(copy):
    material = gather(copy, split="val")
    mistakes = choose_mistakes(material.predictions, pairs_of(material), material.probabilities, limit=8)
    assert mistakes
    told = explain_mistakes(material, mistakes)
    for one in mistakes:
        contrast = told[one.row].contrast
        logits = material.predictions.logits[one.row]
        assert (contrast.class_a, contrast.class_b) == (CLASSES[one.predicted], CLASSES[one.true])
        assert contrast.difference == pytest.approx(logits[one.predicted] - logits[one.true], abs=1e-4)
        assert told[one.row].nearest == (None, None)
    text = write_report(copy).path.read_text()
    first = told[mistakes[0].row].contrast
    assert html.escape(f"Why {first.class_a}, not {first.class_b}?", quote=False) in text
    assert ('class="for"' in text) == any((one.contrast.contributions > 0).any() for one in told.values())


def test_the_nearest_training_photographs_stand_beside_a_mistake_with_their_votes(copy, run):
    assert run("gallery", copy)[0] == 0
    material = gather(copy, split="val")
    mistakes = choose_mistakes(material.predictions, pairs_of(material), material.probabilities, limit=8)
    told = explain_mistakes(material, mistakes)
    gallery = read_gallery(copy / "bundle")
    for one in mistakes:
        for near, label in zip(told[one.row].nearest, (one.predicted, one.true), strict=True):
            rows = gallery.embeddings[gallery.labels == label].astype(np.float64)
            wanted = material.predictions.embeddings[one.row].astype(np.float64)
            if gallery.metric == "cosine":
                rows, wanted = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (rows, wanted))
                distance = (1 - rows @ wanted).min()
            else:
                distance = np.linalg.norm(rows - wanted, axis=1).min()
            assert near.class_name == CLASSES[label]
            assert near.distance == pytest.approx(distance, abs=1e-3)
            assert near.votes.shape == material.predictions.grid
    assert "training photograph, distance" in write_report(copy).path.read_text()


def test_after_its_time_the_model_is_not_asked_any_further(copy):
    material = gather(copy, split="val")
    mistakes = choose_mistakes(material.predictions, pairs_of(material), material.probabilities, limit=8)
    assert explain_mistakes(material, mistakes, max_seconds=-1.0) == {}


def test_without_a_bundle_that_can_be_read_the_page_has_no_contrasts_and_a_warning(copy, caplog):
    material = gather(copy, split="val")
    mistakes = choose_mistakes(material.predictions, pairs_of(material), material.probabilities, limit=8)
    (copy / "bundle" / "model.safetensors").write_bytes(b"cut")
    assert explain_mistakes(material, mistakes) == {}
    assert "the report has no contrasts of classes" in caplog.text


def test_what_is_saved_is_not_measured_again(copy, monkeypatch):
    monkeypatch.setattr("finevote.measure.evaluate.evaluate", lambda *_, **__: pytest.fail("measured again"))
    write_report(copy)


def test_the_test_split_is_measured_once_with_an_entry_in_the_ledger(copy):
    write_report(copy, split="test")
    write_report(copy, split="test")
    assert len(ledger(copy)) == 1
    assert "opened once with this run" in (copy / "report.html").read_text()


def test_a_page_of_validation_leaves_the_test_split_closed(copy):
    write_report(copy)
    assert ledger(copy) == []


def test_without_the_images_the_page_has_no_photographs_and_says_why(copy, made, tmp_path):
    shutil.copytree(made[1], tmp_path / "data")
    values = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**values, "data": str(tmp_path / "data")}))
    shutil.rmtree(tmp_path / "data")
    text = write_report(copy).path.read_text()
    assert "<img" not in text
    assert "There are no photographs here" in text
    assert 'id="classes-1"' in text


def test_images_that_were_moved_are_found_by_data(copy, made, tmp_path):
    moved = shutil.copytree(made[1], tmp_path / "moved")
    values = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**values, "data": str(tmp_path / "gone")}))
    assert "<img" in write_report(copy, data=moved).path.read_text()


def test_images_that_are_not_where_they_are_said_to_be_are_an_error(copy, tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        write_report(copy, data=tmp_path / "nowhere")
    assert not (copy / "report.html").exists()


def test_a_run_that_lacks_what_is_not_needed_still_has_a_page(copy):
    (copy / "metrics.jsonl").unlink(missing_ok=True)
    report = copy / "evaluation" / "val" / "report.json"
    values = json.loads(report.read_text())
    for name in ("trust", "selective", "unknown", "num_unread_openings"):
        values.pop(name, None)
    report.write_text(json.dumps(values))
    text = write_report(copy).path.read_text()
    assert "has no epochs, so there are no curves" in text
    assert 'id="calibration"' not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "cannot read .*report.json of the run"), (None, "has no top_1; measure it again: finevote evaluate")],
)
def test_a_broken_report_is_an_error_that_says_what_to_do(copy, content, words):
    path = copy / "evaluation" / "val" / "report.json"
    values = json.loads(path.read_text())
    values.pop("top_1")
    path.write_text(json.dumps(values) if content is None else content)
    with pytest.raises(RunError, match=words):
        write_report(copy)
    assert not (copy / "report.html").exists()


def test_a_run_without_validation_is_refused_for_validation(copy):
    shutil.rmtree(copy / "evaluation")
    values = json.loads((copy / "split.json").read_text())
    del values["splits"]["val"]
    (copy / "split.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="trained without validation: only its test split"):
        write_report(copy)


def test_where_the_page_cannot_be_written_the_old_one_stays(copy, monkeypatch):
    write_report(copy)
    before = (copy / "report.html").read_bytes()

    def full(*_, **__):
        raise StorageError("the disk is full")

    monkeypatch.setattr("finevote.report.render.atomic_write", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_report(copy)
    assert (copy / "report.html").read_bytes() == before


def test_an_ablation_that_the_run_is_of_is_found_above_it(copy, tmp_path):
    run = shutil.copytree(copy, tmp_path / "study" / "full" / "seed-0")
    standing = {"name": "full", "runs": [str(run)], "accuracy": 0.5, "low": 0.4, "high": 0.6}
    (tmp_path / "study" / "ablation.json").write_text(json.dumps({"standings": [standing], "duels": []}))
    assert gather(run, split="val").study["stem"] == "ablation"
    assert gather(copy, split="val").study is None
    assert gather(copy, split="val", ablation=tmp_path / "study").study["standings"] == [standing]


def test_a_folder_without_an_ablation_is_refused(copy, tmp_path):
    with pytest.raises(RunError, match=r"has no ablation.json or sweep.json that can be read"):
        write_report(copy, ablation=tmp_path)


def test_the_audit_of_the_same_images_is_shown(copy, made, tmp_path):
    assert "finevote data audit" in write_report(copy).path.read_text()
    audit = tmp_path / "audit.json"
    audit.write_text(json.dumps({"counts": {"same_file": 3, "label_error": 0}}))
    leaks = KnownLeaks({"test": {"train": 2}}, {"test": 12}, str(audit))
    splits = json.loads((copy / "split.json").read_text())["splits"]
    keep_leaks(str(made[1]), [image_id for ids in splits.values() for image_id in ids], leaks)
    text = write_report(copy).path.read_text()
    assert "2 of 12 test images have a copy in train: figures measured on test flatter" in text
    assert re.search(r'the same file, byte for byte</th><td class="num"\s*>3</td>', text)
    assert "a label in doubt" not in text
    assert "finevote data audit" not in text


def test_the_commands_make_the_run_again_by_its_settings(copy):
    fit, *_ = commands(gather(copy, split="val"))
    assert fit.startswith("finevote fit ")
    assert f"--recipe {copy / 'config.yaml'} --out {copy}" in fit


def test_settings_that_differ_from_a_recipe_are_named(copy):
    from finevote.config import dump_config, load_config

    config = load_config("demo", ["optim.lr=0.5", "model.voting.dilations=[1, 2]"])
    material = gather(copy, split="val")
    (copy / "config.yaml").write_text(dump_config(config))
    again = gather(copy, split="val")
    words = commands(again)[0].replace("\\\n", "").split()
    assert material.config != again.config
    assert words[words.index("--recipe") + 1] == "demo"
    assert [word for word in words if word.startswith("optim.lr=")] == ["optim.lr=0.5"]
    assert sum(word == "--set" for word in words) == 2


def answer(run, right):
    path = run / "evaluation" / "val" / "predictions.npz"
    saved, names = load_predictions(path)
    told = np.where(np.asarray(right, bool), saved.labels, (saved.labels + 1) % 3)
    save_predictions(path, Predictions(saved.image_ids, saved.labels, np.eye(3, dtype=np.float32)[told]), names)


@pytest.fixture
def pair(copy, tmp_path):
    other = shutil.copytree(copy, tmp_path / "two")
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("merge: false", "merge: true"))
    answer(copy, [1, 1, 1, 1, 0, 0, 0, 0, 1])
    answer(other, [1, 1, 1, 0, 1, 1, 1, 1, 1])
    return copy, other


def test_two_runs_are_compared_with_what_flips_and_what_differs(pair, tmp_path):
    written = write_comparison(pair, out=tmp_path / "compared.html")
    text = written.path.read_text()
    assert "No difference is shown between one and two (+33.3 points" in text
    assert "one alone names 1 image right, two alone 4" in text
    assert "Only two names these right" in text
    assert text.count("data:image/jpeg") == 5
    assert '<th scope="row">model.voting.merge</th>' in text
    assert not (tmp_path / "runs").exists()


def test_without_out_the_page_lies_beside_the_comparison(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = write_comparison(pair)
    assert written.path.as_posix() == "runs/compare-1/report.html"
    assert (tmp_path / "runs" / "compare-1" / "comparison.json").exists()


def test_names_lose_the_folder_that_all_share():
    assert list(short_names(["runs/a", "runs/b"]).values()) == ["a", "b"]
    assert list(short_names(["runs/x/a", "runs/b"]).values()) == ["x/a", "b"]
    assert list(short_names(["runs/a", "lr=1"]).values()) == ["a", "lr=1"]


class TestCommand:
    def test_it_prints_the_file_and_its_size(self, copy, run):
        code, out, _ = run("report", copy)
        assert code == 0
        assert re.fullmatch(rf"{re.escape(str(copy / 'report.html'))} \(\d+ kB\)\n", out)

    def test_out_is_the_file(self, copy, tmp_path, run):
        assert run("report", copy, "--out", tmp_path / "page.html")[0] == 0
        assert (tmp_path / "page.html").exists()
        assert not (copy / "report.html").exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (("--out", "page.pdf"), "has the ending '.pdf'; allowed: .html, .htm"),
            (("--out", "nowhere/page.html"), "there is no folder nowhere"),
            (("--split", "train"), "'train' is not one of 'val', 'test'"),
            (("--ablation", "nowhere"), "nowhere has no ablation.json or sweep.json"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, copy, run, monkeypatch, tmp_path, options, words):
        monkeypatch.chdir(tmp_path)
        code, _, err = run("report", copy, *options)
        assert (code, len(err.splitlines())) == (2, 1)
        assert words in err

    def test_no_run_is_told(self, tmp_path, run):
        code, _, err = run("report", tmp_path / "none")
        assert code == 2
        assert "there is no run folder" in err

    def test_an_ablation_beside_several_runs_is_refused(self, copy, run):
        code, _, err = run("report", copy, copy, "--ablation", copy)
        assert code == 2
        assert "--ablation stands beside one run" in err


class TestAtTheEndOfATraining:
    @pytest.fixture
    def fit(self, monkeypatch, run, copy):
        monkeypatch.setattr("finevote.training.fit.fit", lambda *_, **__: copy)
        return lambda: run("fit", "synthetic")

    def test_the_report_is_written_on_validation(self, fit, copy):
        code, out, _ = fit()
        assert code == 0
        assert f"report: {copy / 'report.html'} (" in out
        assert f"finevote evaluate {copy}" in out

    def test_a_report_that_fails_is_a_warning(self, fit, copy, monkeypatch):
        def fail(*_, **__):
            raise ValueError("no\nidea")

        monkeypatch.setattr("finevote.report.run.write_report", fail)
        code, out, err = fit()
        assert code == 0
        assert f"finevote evaluate {copy}" in out
        assert err.splitlines()[-1] == f"warning: the report is left out (no idea): finevote report {copy}"

    def test_a_run_without_validation_has_none(self, fit, copy):
        values = json.loads((copy / "split.json").read_text())
        del values["splits"]["val"]
        (copy / "split.json").write_text(json.dumps(values))
        code, out, err = fit()
        assert code == 0
        assert "report:" not in out
        assert "warning" not in err


def test_a_page_can_be_made_of_what_was_gathered_without_writing(copy):
    page = make_page(gather(copy, split="val"))
    assert page.title == "one"
    assert not (copy / "report.html").exists()
