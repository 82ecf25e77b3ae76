"""A run exported: the file answers as the run does, says all that a bundle says, and is refused where it does not."""

import json
import shutil
from functools import partial

import numpy as np
import onnx
import pytest
from PIL import Image

from finevote.added import add_classes
from finevote.data.images import read_image
from finevote.data.resizing import model_input, read_pixels
from finevote.errors import ArgumentError, BundleError, ExportError
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule
from finevote.export import run as export_module
from finevote.export.choices import Format, Precision
from finevote.export.parity import Parity
from finevote.export.run import export
from finevote.measure.calibrate import calibrate_run
from finevote.onnx_model import OnnxDescription, OnnxModel
from finevote.predictor import Predictor
from tests.tiny import CLASSES, write_photographs, write_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with a calibration, and its photographs."""
    root = tmp_path_factory.mktemp("exported")
    run = write_run(root / "run", data=write_photographs(root / "photographs", num_test=2))
    calibrate_run(run)
    return run


@pytest.fixture(scope="module")
def exported(finished):
    return export(finished)


def photographs(run):
    return sorted((run.parent / "photographs" / "test").rglob("*.png"))


def test_the_file_is_in_the_run_and_agrees(finished, exported):
    assert exported.path == finished / "export" / "model-fp32.onnx"
    assert exported.size_bytes == exported.path.stat().st_size
    assert exported.parity.agreement == 1
    assert exported.parity.largest_difference < 1e-4
    onnx.checker.check_model(onnx.load(exported.path))


def test_it_predicts_what_the_run_predicts(finished, exported):
    paths = photographs(finished)
    assert paths
    ours, skipped = Predictor.load(finished).predict_files(paths, top=3)
    theirs, skipped_too = Predictor.load(exported.path).predict_files(paths, top=3)
    assert (skipped, skipped_too) == ({}, {})
    for our, their in zip(ours, theirs, strict=True):
        assert (their.image_id, their.class_names) == (our.image_id, our.class_names)
        np.testing.assert_allclose(their.probabilities, our.probabilities, atol=1e-5)


def test_it_keeps_the_promises_of_the_run(finished, exported):
    asked = {"sets": SetRule(0.5), "rule": AnswerRule(false_alarms=0.5)}
    path = photographs(finished)[0]
    ours, theirs = (Predictor.load(place).predict(path, **asked) for place in (finished, exported.path))
    assert (theirs.class_names, theirs.answer) == (ours.class_names, ours.answer)


def test_it_says_what_the_bundle_says(finished, exported):
    model, bundle = OnnxModel(exported.path), Predictor.load(finished).bundle
    described = model.description
    assert described.class_names == CLASSES
    assert described.preprocessing == bundle.preprocessing
    assert described.bundle_sha256 == bundle.manifest.sha256
    assert described.temperature == bundle.calibration.temperature
    assert described.parity == exported.parity.to_dict()
    assert described.thresholds["sets"]["lac"].keys() == {"0.8", "0.9", "0.95", "0.99"}
    for name, scores in bundle.calibration.scores.items():
        np.testing.assert_array_equal(model.calibration.scores[name], scores)


def test_the_second_output_of_the_file_is_its_votes(finished, exported):
    predictor, model = Predictor.load(finished), OnnxModel(exported.path)
    path = photographs(finished)[0]
    pixels = read_pixels(partial(read_image, path), predictor.preprocessing)
    votes = model.run(model_input(pixels[None], predictor.preprocessing)).votes
    explained = predictor.explain(path)
    np.testing.assert_array_equal(votes.reshape(model.description.grid), explained.votes.final)


@pytest.mark.long
def test_a_program_of_torch_agrees_and_tells_what_it_is(finished):
    done = export(finished, format=Format.TORCH)
    assert done.path.suffix == ".pt2"
    assert done.parity.largest_difference < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_smaller_numbers_are_written_where_the_drop_is_allowed(finished, precision):
    done = export(finished, precision=precision, max_drop=1.0, min_agreement=0.0)
    assert OnnxModel(done.path).description.precision == precision
    assert len(Predictor.load(done.path).predict_files(photographs(finished))[0]) == len(photographs(finished))


def test_a_file_that_loses_more_than_allowed_is_not_written(finished, tmp_path, monkeypatch):
    worse = Parity(num_images=6, largest_difference=3.0, agreement=0.5, top_1=0.8, top_1_exported=0.7)
    monkeypatch.setattr(export_module, "OnnxCandidate", lambda *_, **__: None)
    monkeypatch.setattr(export_module, "_compare", lambda *_: worse)
    with pytest.raises(ExportError, match=r"drop of 10\.00 points, allowed are 1\.00; nothing was written"):
        export(finished, precision=Precision.INT8, out=tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_added_classes_are_told_to_be_left_out(finished, tmp_path, caplog):
    run = shutil.copytree(finished, tmp_path / "run")
    add_classes(run, write_new(tmp_path / "new"))
    done = export(run, format=Format.TORCH, out=tmp_path / "model.pt2")
    assert done.parity.agreement == 1
    assert "classes that were added are left out of the file, which has the trained ones: violet" in caplog.text


def write_new(folder):
    """Write one new class of three photographs."""
    for number in range(3):
        path = folder / "violet" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 24), (150, 50, 190 + number)).save(path)
    return folder


def test_a_program_of_torch_has_full_precision_only(finished):
    with pytest.raises(ExportError, match="fp32 only, not int8"):
        export(finished, format=Format.TORCH, precision=Precision.INT8)


def test_what_is_built_into_a_file_cannot_be_changed(exported):
    with pytest.raises(ArgumentError, match=r"exported at keep rate 1, which is built into it"):
        Predictor.load(exported.path, keep_rate=0.5)
    with pytest.raises(ArgumentError, match="looks at the plain view only, not views='flip'"):
        Predictor.load(exported.path, views="flip")
    with pytest.raises(ArgumentError, match="not an exported file"):
        Predictor.load(exported.path).explain(np.zeros((9, 9, 3), np.uint8))


def test_damaged_files_are_told(exported, tmp_path):
    whole = exported.path.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match=r"cannot read .*cut\.onnx as ONNX"):
        Predictor.load(cut)
    with pytest.raises(BundleError, match="there is no file"):
        Predictor.load(tmp_path / "missing.onnx")
    graph = onnx.load(exported.path)
    described = {entry.key: entry.value for entry in graph.metadata_props}
    onnx.helper.set_model_props(graph, {})
    other = tmp_path / "other.onnx"
    onnx.save(graph, other)
    with pytest.raises(BundleError, match="was not exported by finevote"):
        Predictor.load(other)
    values = json.loads(described["finevote"])
    onnx.helper.set_model_props(graph, {**described, "finevote": json.dumps({**values, "format_version": 7})})
    onnx.save(graph, other)
    with pytest.raises(BundleError, match="has format version 7"):
        Predictor.load(other)
    onnx.helper.set_model_props(graph, {**described, "finevote.calibration": "no base64"})
    onnx.save(graph, other)
    with pytest.raises(BundleError, match=r"what .* says of itself is damaged"):
        Predictor.load(other)


def test_a_description_comes_back_as_it_was(finished):
    described = OnnxModel(finished / "export" / "model-fp32.onnx").description
    again, calibration = OnnxDescription.from_metadata(described.to_metadata(None), name="it")
    assert again == described
    assert calibration is None
