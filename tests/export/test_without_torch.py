"""An exported file where there is no PyTorch: only the packages of container/*.txt can be imported."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule
from finevote.export.run import export
from finevote.measure.calibrate import calibrate_run
from finevote.predictor import Predictor
from tests.export.bare import link_package, make_bare, run_bare, with_all_they_need
from tests.house.repository import ROOT
from tests.tiny import make_config, write_bundle, write_photographs, write_run
from tests.training.helpers import changed

COMMAND = ("-m", "finevote")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported file beside photographs of every kind that there is: turned by EXIF, grey, with transparency."""
    root = tmp_path_factory.mktemp("model")
    run = write_run(root / "run", data=write_photographs(root / "data"))
    write_bundle(run / "bundle", config=changed(make_config(), "data", decoding="exact"))
    calibrate_run(run)
    path = export(run, out=root / "model.onnx").path
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    photograph = Image.fromarray(pixels)
    turned = photograph.getexif()
    turned[0x0112] = 6  # lies on its side
    photograph.save(root / "photo.jpg", exif=turned)
    photograph.convert("L").save(root / "grey.png")
    photograph.convert("RGBA").save(root / "clear.png")
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return make_bare(tmp_path_factory.mktemp("bare") / "packages", "predict.txt")


@pytest.mark.slow
def test_torch_cannot_be_imported_there(bare, tmp_path):
    done = run_bare(bare, "-c", "import torch", cwd=tmp_path)
    assert "No module named 'torch'" in done.stderr


@pytest.mark.slow
def test_a_file_predicts_as_it_does_beside_torch(bare, model, tmp_path):
    photographs = [model.with_name(name) for name in ("photo.jpg", "grey.png", "clear.png")]
    asked = ("--coverage", 0.6, "--false-alarms", 0.2)
    done = run_bare(bare, *COMMAND, "predict", model, *photographs, *asked, "--out", tmp_path / "a.jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    rule = AnswerRule(0.2, "distance", None, None)
    expected, _ = Predictor.load(model).predict_files(
        photographs, sets=SetRule(0.6, "lac", each_class=False), rule=rule
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert [row["class"] for row in ours["top"]] == list(theirs.class_names)
        assert [row["probability"] for row in ours["top"]] == pytest.approx(theirs.probabilities)
        assert ours["answer"] == theirs.answer.text


@pytest.mark.slow
def test_nothing_is_left_in_the_home_of_the_user(bare, model, tmp_path):
    done = run_bare(bare, *COMMAND, "predict", model, model.with_name("photo.jpg"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == []  # by default ONNX Runtime keeps an identifier there, and sends events


@pytest.mark.slow
def test_what_needs_torch_says_so(bare, model, tmp_path):
    for command in (("predict", model.parent / "run", model.parent / "photo.jpg"), ("soup", "a", "b")):
        done = run_bare(bare, *COMMAND, *command, cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "is not installed, and only an exported .onnx file can do without: pip install finevote" in done.stderr


@pytest.mark.slow
def test_the_server_starts_with_what_the_image_has(model, tmp_path):
    pytest.importorskip("fastapi")
    folder = make_bare(tmp_path / "packages", "serve.txt")
    code = (
        "import sys; from pathlib import Path; from finevote.serving.settings import read_settings\n"
        "import finevote.serving.server; from finevote.serving.app import create_app\n"
        f"create_app(read_settings(bundle=Path({str(model)!r}))); print(sorted({{'torch', 'timm'}} & set(sys.modules)))"
    )
    done = run_bare(folder, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("[]")


def snippet() -> str:
    text = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "InferenceSession" in code]
    return code


@pytest.mark.slow
def test_the_snippet_of_the_document_gives_what_finevote_gives(model, tmp_path):
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in with_all_they_need(["numpy", "onnxruntime", "pillow"]):
        link_package(folder, name)
    for name in ("model.onnx", "photo.jpg"):
        shutil.copy(model.with_name(name), tmp_path / name)
    done = run_bare(folder, "-c", snippet(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = Predictor.load(model).predict(tmp_path / "photo.jpg", top=3)
    rows = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[: len(expected.class_names)]]
    assert [name for name, _ in rows] == list(expected.class_names)
    assert [float(value) for _, value in rows] == pytest.approx(expected.probabilities, abs=1e-4)


def test_the_snippet_is_short():
    lines = [line for line in snippet().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= 20
