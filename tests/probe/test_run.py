import json
import shutil

import pytest
from rich.console import Console

from finevote.errors import DataError
from finevote.probe.run import probe
from finevote.training.prepare import prepare_run
from tests.models import NARROW, tiny_config
from tests.tiny import make_config, write_photographs
from tests.training.helpers import changed

TINY = ("--backbone", "vit_tiny_patch16_224", "--weights", "none", "--set", f"model.backbone_args={json.dumps(NARROW)}")
SMALL = ("--set", "data.image_size=32", "--set", "data.num_workers=0")


@pytest.fixture
def data(tmp_path):
    return write_photographs(tmp_path / "data", num_test=1)


def test_the_command_tells_each_probe_s_accuracy_what_was_chosen_and_how(run, data):
    code, out, err = run("probe", data, *TINY, *SMALL)
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert "9 validation images of 3 classes" in words
    assert all(name in words for name in ("kNN, CLS, k=", "logistic, CLS, λ=", "kNN, CLS + patches, k="))
    assert "chosen on the same validation images" in words
    assert "the weights are random" in words
    assert "features of 0 of 27 images were kept from before" in words


def test_a_second_run_reads_the_features_and_says_so(run, data):
    run("probe", data, *TINY, *SMALL)
    _, out, _ = run("probe", data, *TINY, *SMALL)
    assert "features of 27 of 27 images were kept from before" in " ".join(out.split())


def test_json_is_printed_and_written(run, data, tmp_path):
    _, out, _ = run("probe", data, *TINY, *SMALL, "--json", "--out", tmp_path / "found.json")
    printed = json.loads(out)
    assert printed == json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert len(printed["rows"]) == 4
    assert (printed["num_train"], printed["num_validation"], printed["weights"]) == (18, 9, "none")


def test_colours_are_told_apart_without_training(data):
    found = probe(data, tiny_config())
    assert max(found.probes.accuracies).value == 1
    assert found.probes.num_validation == 9


def test_the_test_split_stays_closed(run, data):
    shutil.rmtree(data / "test" / "red")
    (data / "test" / "red").write_text("not a folder: listing it would fail")
    assert run("probe", data, *TINY, *SMALL)[0] == 0


def test_validation_images_are_held_out_as_fit_does_it(data):
    found = probe(data / "train", tiny_config(data__validation_fraction=0.5))
    assert (found.probes.num_validation, len(found.probes.bank_labels)) == (9, 9)
    assert found.setting == "fitted to 9 images, k and penalty chosen on 9 held out of training"


def test_without_validation_there_is_nothing_to_choose_by(data):
    with pytest.raises(DataError, match=r"no validation images to choose by: set data.validation_fraction above 0"):
        probe(data / "train", tiny_config(data__validation_fraction=0.0))


def test_classes_are_held_out_as_fit_does_it(run, data):
    code, out, err = run("probe", data / "train", *TINY, *SMALL, "--hold-out-classes", "green", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["num_classes"] == 2
    assert any("held out, to stand for the unknown: 1 class: green" in note for note in found["notes"])
    config = changed(changed(make_config(), "data", hold_out_classes=("green",)), "training", batch_size=4)
    fitted = prepare_run(config, data / "train", out=data / "run", skip_bad=False, console=Console(quiet=True))
    num_images = json.loads(fitted.data_json.read_text())["num_images"]
    assert (found["num_train"], found["num_validation"]) == (num_images["train"], num_images["val"])
    assert "no class 'gren' to hold out; did you mean" in run("probe", data, *TINY, "--hold-out-classes", "gren")[2]


def test_an_unreadable_image_is_an_error_that_says_how_to_leave_it_out(run, data):
    (data / "val" / "red" / "0.png").write_bytes(b"broken")
    code, _, err = run("probe", data, *TINY, *SMALL)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "red/0.png: not an image, or of an unknown format: mend it, or leave it out with --skip-bad" in err
    code, out, err = run("probe", data, *TINY, *SMALL, "--skip-bad")
    assert code == 0, err
    words = " ".join(out.split())
    assert "8 validation images of 3 classes" in words
    assert "left out as unreadable: 1 of 27 images" in words


def test_a_backbone_must_be_named_by_itself_or_by_a_recipe(run, data):
    code, _, err = run("probe", data)
    assert (code, "probe needs a backbone: --backbone" in err) == (2, True)


def test_another_backbone_than_the_recipe_s_takes_neither_its_arguments_nor_its_weights(run, data):
    options = ("--recipe", "demo", "--backbone", "vit_small_patch16_224")
    code, _, err = run("probe", data, *options, "--set", "model.weights=gone.pth")
    assert (code, "no weight file at gone.pth" in err) == (2, True)


def test_the_figures_are_written_to_a_json_file_alone(run, data):
    code, _, err = run("probe", data, *TINY, "--out", "found.txt")
    assert (code, "allowed: .json" in err) == (2, True)


@pytest.mark.slow
def test_synthetic_birds_are_probed_from_end_to_end(run):
    options = ("--recipe", "demo", "--set", "data.image_size=32", "--set", "data.resize=32", "--json")
    code, out, _ = run("probe", "synthetic", *options)
    assert code == 0
    assert json.loads(out)["num_validation"] == 240
