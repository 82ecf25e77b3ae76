import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from finevote.build import build_model, build_preprocessing
from finevote.bundle.write import save_bundle
from finevote.cli import app
from finevote.errors import ArgumentError, DataError
from finevote.similarity.run import measure_similarity
from tests.tiny import CLASSES, make_config, write_photographs, write_run
from tests.training.helpers import changed

PICTURES = {"cka.png", "budget.png", "votes.png"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    run = write_run(root / "run", data=write_photographs(root / "data", num_test=4))
    rows = [
        {"kind": "step", "epoch": 1, "step": 2, "budget": [4, 4, 4]},
        {"kind": "epoch", "epoch": 1, "step": 4, "budget": [6, 3, 3]},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def make_plain(run):
    config = make_config()
    config = changed(config, "model", voting=config.model.voting.model_copy(update={"enabled": False}))
    model = build_model(config, num_classes=len(CLASSES))
    preprocessing = build_preprocessing(config.data, model.backbone)
    save_bundle(run / "bundle", model, config=config, class_names=CLASSES, preprocessing=preprocessing, details={})


def test_maps_budget_and_votes_are_written_into_the_run(run):
    found, folder = measure_similarity(run)
    assert folder == run / "similarity"
    assert {path.name for path in folder.iterdir()} == {*PICTURES, "similarity.json"}
    values = json.loads((folder / "similarity.json").read_text())
    assert values == json.loads(json.dumps(found.to_dict()))
    assert values["num_images"] == 9
    assert values["layers"] == ["layer 1", "layer 2", "layer 3", "refinement"]
    for kind in ("cls", "patches"):
        np.testing.assert_allclose(np.diagonal(values["cka"][kind]["minibatch"]), 1)
    assert values["budget"][-1] == {"epochs": 1.0, "counts": [6, 3, 3]}
    assert sum(share["value"] for share in values["votes"]["key"]) == pytest.approx(1)


def test_the_same_is_found_again(run):
    first, _ = measure_similarity(run, num_images=6)
    second, _ = measure_similarity(run, num_images=6)
    assert first.to_dict() == second.to_dict()
    assert first.num_images == 6


def test_a_plain_run_has_its_layers_compared_and_says_so(run):
    measure_similarity(run)
    make_plain(run)
    found, folder = measure_similarity(run)
    assert {path.name for path in folder.iterdir()} == {"cka.png", "similarity.json"}
    assert found.notes() == ["a plain backbone has no votes and no budget: only its layers are compared"]


def test_a_look_at_the_test_split_is_entered_in_the_ledger(run):
    measure_similarity(run)
    assert not (run / "test_ledger.jsonl").exists()
    measure_similarity(run, split="test", num_images=5)
    (line,) = (run / "test_ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["purpose"] == "similarity"


def test_a_run_without_a_record_of_its_training_has_no_plot_of_the_budget(run):
    (run / "metrics.jsonl").unlink()
    found, folder = measure_similarity(run)
    assert not (folder / "budget.png").exists()
    assert found.budget_summary() == "No record of the budget over training is there"


def test_images_that_cannot_be_read_are_left_out(run):
    data = json.loads((run / "data.json").read_text())["data"]
    path = run.parent / "data"
    shutil.copytree(data, path)
    (path / "test" / "red" / "0.png").write_bytes(b"no image")
    found, _ = measure_similarity(run, split="test", data=path)
    assert found.num_images == 11


def test_too_few_images_are_refused(run):
    with pytest.raises(ArgumentError, match="num_images=3 is too few to compare layers by: give 4 or more"):
        measure_similarity(run, num_images=3)
    path = shutil.copytree(json.loads((run / "data.json").read_text())["data"], run.parent / "data")
    for image in sorted((path / "test").rglob("*.png"))[3:]:
        image.write_bytes(b"no image")
    with pytest.raises(DataError, match="has 3 test images that can be read: comparing layers takes 4 or more"):
        measure_similarity(run, split="test", data=path)


def test_a_file_in_the_place_of_the_folder_is_refused(run, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="is a file: give a folder"):
        measure_similarity(run, out=tmp_path / "file")


def test_the_command_prints_what_was_found_and_where_it_lies(run, tmp_path):
    done = CliRunner().invoke(app, ["similarity", str(run), "--images", "8", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "gains most of the budget" in done.output
    assert done.output.rstrip().endswith("out")
    values = json.loads(CliRunner().invoke(app, ["similarity", str(run), "--json"]).stdout)
    assert values["schema_version"] == 1
