"""From validation to believable answers: the calibration of a bundle, in evaluate and predict."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from finevote.bundle.manifest import read_manifest
from finevote.bundle.read import load_bundle
from finevote.bundle.record import record_calibration, record_keep_rate
from finevote.bundle.write import save_bundle
from finevote.errors import ArgumentError, BundleError, StorageError
from finevote.evaluation.calibrator import Calibration, SetRule, calibrate
from finevote.evaluation.metrics import softmax
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.measure import examples
from finevote.measure.evaluate import evaluate
from finevote.measure.examples import draw_examples
from finevote.measure.opening import open_split
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder
from finevote.study import compare as comparing
from finevote.study.compare import compare
from finevote.training.fit import fit
from finevote.tune_speed import tune_speed
from finevote.types import Predictions
from tests.tiny import CLASSES, make_config, make_model, write_bundle, write_photographs, write_run


def some_predictions(num_images=60):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (num_images, 3)).astype(np.float32)
    return Predictions(tuple(map(str, range(num_images))), rng.integers(0, 3, num_images), logits)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run whose bundle is calibrated, on made-up images."""
    root = tmp_path_factory.mktemp("made")
    run = write_run(root / "run", data=write_photographs(root / "data", num_test=4))
    model, preprocessing = make_model(make_config())
    save_bundle(
        run / "bundle",
        model,
        config=make_config(),
        class_names=CLASSES,
        preprocessing=preprocessing,
        details={},
        calibration=calibrate(some_predictions()),
    )
    return run


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def photograph(run, name="test/red/0.png"):
    return json.loads((run / "data.json").read_text())["data"] + "/" + name


def test_a_bundle_keeps_its_calibration(finished):
    expected, found = calibrate(some_predictions()), load_bundle(finished / "bundle").calibration
    assert (found.temperature, found.keep_rate) == (expected.temperature, 1.0)
    assert np.array_equal(found.labels, expected.labels)
    assert all(np.array_equal(found.scores[name], scores) for name, scores in expected.scores.items())
    assert np.array_equal(found.is_right, expected.is_right)
    assert found.unknown.keys() == {"energy", "max_softmax"}
    assert all(np.array_equal(found.unknown[name], scores) for name, scores in expected.unknown.items())


def test_a_calibration_that_was_changed_is_refused(finished):
    path = finished / "bundle" / "calibration.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"calibration\.safetensors was changed"):
        load_bundle(finished / "bundle")


def test_probabilities_are_at_the_temperature(finished):
    evaluate(finished, split="test")
    predictions, _ = load_predictions(finished / "evaluation" / "test" / "predictions.npz")
    row = predictions.image_ids.index("test/red/0.png")
    temperature = calibrate(some_predictions()).temperature
    expected = np.sort(softmax(predictions.logits[row : row + 1] / temperature)[0])[::-1]
    assert Predictor.load(finished).predict(photograph(finished)).probabilities == pytest.approx(expected, abs=1e-6)


def test_pictures_tell_the_probabilities_that_predict_tells(finished, monkeypatch, tmp_path):
    drawn, flips = [], []
    monkeypatch.setattr(examples, "example_grid", lambda cells, **_: drawn.extend(cells) or Figure())
    draw_examples(finished, split="test")
    answers, _ = Predictor.load(finished).predict_files([Path(photograph(finished, "test"))], top=1)
    told = [answer.probabilities[0] for answer in answers]
    assert sorted(cell.probability for cell in drawn) == pytest.approx(sorted(told), abs=1e-5)

    other = shutil.copytree(finished, tmp_path / "other")
    path = other / "evaluation" / "test" / "predictions.npz"
    saved, names = load_predictions(path)
    save_predictions(path, replace(saved, logits=np.roll(saved.logits, 1, axis=1)), names)
    monkeypatch.setattr(comparing, "flip_sheet", lambda one, two, **_: flips.extend([*one, *two]) or Figure())
    compare([finished, other], split="test", out=tmp_path / "out")
    assert flips
    assert all(min(abs(flip.first[1] - probability) for probability in told) < 1e-5 for flip in flips)


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
def test_a_set_holds_the_likeliest_classes_and_grows_with_the_coverage(finished, method):
    predictor = Predictor.load(finished)
    every = predictor.predict(photograph(finished)).class_names
    answers = [predictor.predict(photograph(finished), sets=SetRule(c, method)).class_names for c in (0.01, 0.5, 0.999)]
    assert all(names == every[: len(names)] for names in answers)
    assert [len(names) for names in answers] == sorted(len(names) for names in answers)
    assert (len(answers[0]), len(answers[-1])) == (1, 3)


def test_a_set_for_each_class_is_told_whole_though_it_skips_likelier_classes(finished):
    predictor = Predictor.load(finished)
    likeliest, second, rare = (CLASSES.index(name) for name in predictor.predict(photograph(finished)).class_names)
    labels = np.repeat([likeliest, second, rare], [30, 30, 1])  # of the rare class there are too few for a threshold
    calibration = Calibration(1.0, labels, {"lac": np.zeros(len(labels))})
    predictor.torch.bundle = replace(predictor.bundle, calibration=calibration)
    answer = predictor.predict(photograph(finished), sets=SetRule(0.9, each_class=True))
    assert answer.class_names == (CLASSES[likeliest], CLASSES[rare])


def test_predict_gives_sets_on_the_command_line(finished, run, tmp_path):
    out = tmp_path / "sets.csv"
    code, _, err = run("predict", finished, photograph(finished), "--coverage", 0.999, "--out", out)
    assert code == 0, err
    assert len(out.read_text().splitlines()[1].split(",")) == 1 + 2 * 3
    assert run("predict", finished, photograph(finished), "--coverage", 0.9, "--each-class", "--sets", "aps")[0] == 0
    code, _, err = run("predict", finished, photograph(finished), "--coverage", 95)
    assert code == 2
    assert "coverage=95 must lie between 0 and 1" in err


def test_sets_of_a_bundle_without_calibration_are_refused(tmp_path):
    plain = write_run(tmp_path / "run", data=write_photographs(tmp_path / "data", num_test=1))
    assert load_bundle(plain / "bundle").calibration is None
    with pytest.raises(ArgumentError, match="has no calibration for sets"):
        Predictor.load(plain).predict(photograph(plain), sets=SetRule(0.9))


def test_sets_at_another_keep_rate_are_refused_and_figures_left_out(finished):
    record_keep_rate(finished / "bundle", 0.5, details={})
    with pytest.raises(ArgumentError, match=r"calibrated at keep rate 1, and nothing is guaranteed at 0\.5"):
        Predictor.load(finished).predict(photograph(finished), sets=SetRule(0.9))
    assert evaluate(finished, split="test").sections["trust"].after is None
    assert evaluate(finished, split="test", keep_rate=1.0).sections["trust"].after is not None


def test_a_report_says_how_far_the_model_can_be_believed(finished):
    trust = evaluate(finished, split="test").sections["trust"]
    assert trust.temperature == calibrate(some_predictions()).temperature
    assert (trust.num_images, trust.is_across) == (60, False)
    saved = json.loads((finished / "evaluation" / "test" / "report.json").read_text())["trust"]
    assert saved["before"]["brier"] == trust.before.brier._asdict()
    assert (finished / "evaluation" / "test" / "reliability.png").read_bytes().startswith(b"\x89PNG")
    assert evaluate(finished, split="val").sections["trust"].is_across


def test_fit_calibrates_on_validation_as_the_bundle_predicts(tmp_path):
    run = fit(make_config(), write_photographs(tmp_path / "data"), out=tmp_path / "run")
    evaluate(run, split="val")
    predictions, _ = load_predictions(run / "evaluation" / "val" / "predictions.npz")
    expected, found = calibrate(predictions), load_bundle(run / "bundle").calibration
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.labels.tolist() == expected.labels.tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((0.999,), "takes 999 validation images, and the bundle has seen fewer: all classes are in every set"),
        (
            (0.95, "--each-class"),
            "19 validation images of a class, and the bundle has seen fewer: 1 of 3 classes are",
        ),
        ((0.95,), None),
        ((0.9, "--each-class"), None),
    ],
)
def test_predict_says_where_sets_are_large_for_want_of_validation_images(finished, run, options, words):
    assert np.bincount(calibrate(some_predictions()).labels).tolist() == [16, 21, 23]
    code, _, err = run("predict", finished, photograph(finished), "--coverage", *options)
    assert code == 0
    assert words in err if words else "note:" not in err


def test_predict_says_what_error_cannot_be_promised(finished, run):
    code, _, err = run("predict", finished, photograph(finished), "--max-error", 0.02)
    assert code == 2
    assert "no confidence promises an error of 0.02 or less from the 60 validation images" in err


def test_predict_answers_only_where_it_is_sure(finished, run, tmp_path):
    model, preprocessing = make_model(make_config())
    rng = np.random.default_rng(0)
    right = rng.integers(0, 3, 200)
    logits = (np.eye(3)[right] * 9).astype(np.float32)  # surer than the model that is asked
    logits[:100] /= 4
    labels = np.where(np.arange(200) < 100, (right + 1) % 3, right)
    save_bundle(
        finished / "bundle",
        model,
        config=make_config(),
        class_names=CLASSES,
        preprocessing=preprocessing,
        details={},
        calibration=calibrate(Predictions(tuple(map(str, range(200))), labels, logits)),
    )
    out = tmp_path / "out.csv"
    assert run("predict", finished, photograph(finished), "--max-error", 0.05, "--out", out)[0] == 0
    assert out.read_text().splitlines()[1].split(",")[1:3] == ["not sure", "unsure"]
    assert run("predict", finished, photograph(finished), "--max-error", 0.6, "--out", out)[0] == 0
    assert out.read_text().splitlines()[1].split(",")[2] == "class"


def test_calibrate_fits_anew_at_the_keep_rate_of_the_bundle(finished, run):
    weights = (finished / "bundle" / "model.safetensors").read_bytes()
    record_keep_rate(finished / "bundle", 0.5, details={})
    before = read_manifest(finished / "bundle").sha256
    code, out, err = run("calibrate", finished)
    assert code == 0, err
    predictor = Predictor.load(finished)  # checks every hash
    found = predictor.bundle.calibration
    source = open_split(RunFolder(finished), predictor.bundle, split="val", data=None)
    expected = calibrate(predictor.predict_records(source, "val"), keep_rate=0.5)
    assert (found.temperature, found.keep_rate) == (pytest.approx(expected.temperature, rel=1e-3), 0.5)
    assert {name: scores.tolist() for name, scores in found.scores.items()} == {
        name: pytest.approx(scores.tolist(), abs=1e-4) for name, scores in expected.scores.items()
    }
    assert found.class_means.shape[0] == 3
    assert read_manifest(finished / "bundle").sha256 != before
    assert (finished / "bundle" / "model.safetensors").read_bytes() == weights
    assert f"temperature {found.temperature:.3g} at keep rate 0.5" in out
    assert f"before: {calibrate(some_predictions()).temperature:.3g} at keep rate 1\n" in out
    assert out.endswith(f"next: finevote evaluate {finished}\n")  # nothing is saved


def test_after_calibrate_saved_predictions_and_the_ledger_still_count(finished, run):
    measured = evaluate(finished, split="test")
    assert run("calibrate", finished)[0] == 0
    again = evaluate(finished, split="test", saved=True)
    assert again.top_1 == measured.top_1
    assert again.num_test_openings == 1
    assert again.sections["trust"].temperature == load_bundle(finished / "bundle").calibration.temperature
    assert run("predict", finished, photograph(finished), "--coverage", 0.9)[0] == 0


def test_calibrate_names_the_measurements_that_hold_and_no_others(finished, run):
    evaluate(finished, split="test")
    evaluate(finished, split="val", keep_rate=0.5)
    _, out, _ = run("calibrate", finished)
    command = out.splitlines()[-1].removeprefix("next: finevote ")
    assert command == f"evaluate {finished} --split test --saved"
    assert run(*command.split())[0] == 0
    evaluate(finished, split="val")
    (finished / "evaluation" / "test" / "report.json").write_text("{")
    assert run("calibrate", finished)[1].endswith(f"next: finevote evaluate {finished} --saved\n")


@pytest.mark.parametrize("damage", ["missing", "changed", "not listed", "none"])
def test_calibrate_replaces_a_calibration_that_is_damaged(finished, run, damage):
    path = finished / "bundle" / "calibration.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(b"changed")
    else:
        write_bundle(finished / "bundle")  # of the same model, without calibration
        if damage == "not listed":
            path.write_bytes(b"left behind")
    if damage != "none":
        code, _, err = run("predict", finished, photograph(finished))
        assert (code, f"make it anew with `finevote calibrate {finished}`" in err) == (2, True)
    code, out, err = run("calibrate", finished)
    assert code == 0, err
    assert "before: none that can be read\n" in out
    assert load_bundle(finished / "bundle").calibration is not None


def test_calibrate_refuses_a_bundle_whose_weights_were_changed(finished, run):
    for name in ("model.safetensors", "calibration.safetensors"):
        with (finished / "bundle" / name).open("ab") as file:
            file.write(b"more")
    before = {path.name: path.read_bytes() for path in (finished / "bundle").iterdir()}
    code, _, err = run("calibrate", finished)
    assert (code, "model.safetensors has" in err) == (2, True)
    assert "finevote calibrate" not in err
    assert {path.name: path.read_bytes() for path in (finished / "bundle").iterdir()} == before


def test_a_bundle_stays_as_it_was_where_a_calibration_cannot_be_written(finished, monkeypatch):
    content = {path.name: path.read_bytes() for path in (finished / "bundle").iterdir()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finevote.bundle.calibration.save_file", fail)
    with pytest.raises(StorageError, match="No space left"):
        record_calibration(finished / "bundle", calibrate(some_predictions(30)))
    assert {path.name: path.read_bytes() for path in (finished / "bundle").iterdir()} == content
    assert [path.name for path in finished.iterdir() if path.name.startswith(".bundle")] == []


def test_tune_speed_leaves_a_calibration_at_the_rate_that_it_chose(finished, run, monkeypatch):
    monkeypatch.setattr("finevote.tune_speed.choose_rate", lambda *_, **__: 0.5)  # whatever the clock says
    code, _, err = run("tune-speed", finished, "--rates", "1,0.5", "--max-drop", 100)
    assert code == 0, err
    predictor = Predictor.load(finished)
    assert predictor.model.keep_rate == predictor.bundle.calibration.keep_rate == 0.5
    source = open_split(RunFolder(finished), predictor.bundle, split="val", data=None)
    expected = calibrate(predictor.predict_records(source, "val")).temperature
    assert predictor.bundle.calibration.temperature == pytest.approx(expected, rel=1e-3)
    assert run("predict", finished, photograph(finished), "--coverage", 0.95)[0] == 0


def test_tune_speed_that_keeps_the_rate_keeps_the_calibration(finished, monkeypatch):
    monkeypatch.setattr("finevote.tune_speed.choose_rate", lambda *_, **__: 1.0)
    tune_speed(finished, rates=[0.5])
    assert load_bundle(finished / "bundle").calibration.temperature == calibrate(some_predictions()).temperature
