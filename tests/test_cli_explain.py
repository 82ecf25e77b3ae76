import json

import pytest

from finevote.build import build_model, build_preprocessing
from finevote.bundle.write import save_bundle
from tests.models import tiny_config
from tests.test_explaining import write_calibrated
from tests.test_predictor import paint
from tests.tiny import CLASSES


@pytest.fixture
def bundle(tmp_path):
    return write_calibrated(tmp_path / "run" / "bundle")


@pytest.fixture
def photo(tmp_path):
    return paint(tmp_path / "photo.png")


def test_figures_are_written_into_the_run_and_told(bundle, photo, run):
    folder = bundle.parent
    (folder / "config.yaml").write_text("name: x")
    code, out, err = run("explain", folder, photo, "--orders", 4)
    assert code == 0, err
    path, finding = out.splitlines()
    (figure,) = (folder / "explanations").glob("photo-*.png")
    assert path == str(figure)
    assert "of the votes on" in finding
    record = json.loads(figure.with_suffix(".json").read_text())
    assert record["contrast"]["num_permutations"] == 4
    assert record["set"]["coverage"] == 0.9
    assert record["unknown"]["false_alarms"] == 0.05
    assert record["evidence"] == []
    assert "note: the bundle remembers no training photographs" in err


def test_options_reach_the_explanation(bundle, photo, run, tmp_path):
    code, _, err = run(
        "explain", bundle, photo, "--out", tmp_path / "why", "--contrast", "red", "--contrast", "blue", "--orders", 4,
        "--coverage", 0.5, "--false-alarms", 0.3, "--top", 2, "--layer", 1,
    )  # fmt: skip
    assert code == 0, err
    (path,) = (tmp_path / "why").glob("*.json")
    record = json.loads(path.read_text())
    assert (record["contrast"]["class_a"], record["contrast"]["class_b"]) == ("red", "blue")
    assert (record["set"]["coverage"], record["unknown"]["false_alarms"], len(record["top"])) == (0.5, 0.3, 2)


def test_the_contrast_can_be_left_out(bundle, photo, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("explain", bundle, photo, "--no-contrast")[0] == 0
    (path,) = (tmp_path / "explanations").glob("*.json")
    assert json.loads(path.read_text())["contrast"] is None


def test_unreadable_photographs_are_reported_and_skipped(bundle, photo, run, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    code, out, err = run("explain", bundle, bad, photo, "--out", tmp_path / "why", "--no-contrast")
    assert code == 0
    assert f"skipped {bad}: not an image, or of an unknown format" in err
    assert len(out.splitlines()) == 2
    code, _, err = run("explain", bundle, bad, "--out", tmp_path / "why")
    assert code == 2
    assert err.endswith("error: there is no photograph that can be read\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--no-contrast", "--contrast", "red"), "--no-contrast leaves out what --contrast and --orders ask for"),
        (("--no-contrast", "--orders", "8"), "--no-contrast leaves out what --contrast and --orders ask for"),
        (("--contrast", "red", "--contrast", "blue", "--contrast", "green"), "two classes against each other, and 3"),
        (("--contrast", "rod"), "there is no class 'rod'; did you mean 'red'?"),
        (("--orders", "5"), "--orders 5 must be an even number from 4"),
        (("--orders", "0"), "--orders 0 must be an even number from 4"),
        (("--contrast", "red", "--contrast", "red"), "--contrast holds two different classes against each other"),
        (("--layer", "9"), "the classifier has 3 layers that vote: give 1 to 3"),
        (("--coverage", "90"), "coverage=90 must lie between 0 and 1"),
        (("--keep-rate", "0.5", "--coverage", "0.9"), "calibrated at keep rate 1"),
    ],
)
def test_what_cannot_be_asked_is_one_line(bundle, photo, run, tmp_path, options, message):
    code, out, err = run("explain", bundle, photo, "--out", tmp_path / "why", *options)
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "why").exists()


def test_a_plain_run_has_nothing_to_show(photo, run, tmp_path):
    config = tiny_config(model__voting__enabled=False)
    model = build_model(config, num_classes=3).eval()
    ways = build_preprocessing(config.data, model.backbone)
    save_bundle(tmp_path / "b", model, config=config, class_names=CLASSES, preprocessing=ways, details={})
    code, _, err = run("explain", tmp_path / "b", photo)
    assert code == 2
    assert "the classifier has no votes to explain it by" in err.splitlines()[-1]


def test_what_is_no_run_is_refused(photo, run, tmp_path):
    code, _, err = run("explain", tmp_path / "gone", photo)
    assert code == 2
    assert "is not there: give a bundle folder, or a run folder" in err
