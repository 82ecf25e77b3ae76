import io
import json
import shutil

import pytest
from rich.console import Console

from finevote.audit.run import audit
from finevote.errors import ArgumentError, DataError, RunError
from finevote.run_folder import RunFolder
from finevote.training.prepare import load_data, move_data, prepare_run, removed_unless_learned
from tests.training.helpers import changed, make_photographs, tiny_config


@pytest.fixture
def photographs(tmp_path):
    return make_photographs(tmp_path / "birds", num_train=4, num_val=2)


def prepare(data, out, *, skip_bad=False):
    console = Console(file=io.StringIO())
    return prepare_run(tiny_config(), data, out=out, skip_bad=skip_bad, console=console)


def printed(data, out):
    console = Console(file=io.StringIO(), width=200)
    prepare_run(tiny_config(), data, out=out, skip_bad=False, console=console)
    return console.file.getvalue()


def spoil(folder, names):
    for name in names:
        (folder / name).write_bytes(b"not an image")


def test_a_prepared_run_gives_its_data_back(photographs, tmp_path):
    run = prepare(photographs, tmp_path / "run")
    source = load_data(run)
    assert source.class_names == ("blue", "green", "red")
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 12, "val": 6}


def test_a_missing_validation_split_is_made_and_kept(photographs, tmp_path):
    run = prepare(photographs / "train", tmp_path / "run")
    saved = json.loads(run.split_json.read_text(encoding="utf-8"))["splits"]
    source = load_data(run)
    assert [record.image_id for record in source.splits["val"]] == saved["val"]
    assert len(saved["val"]) == 3
    assert not set(saved["val"]) & set(saved["train"])


def test_all_unreadable_images_are_told_at_once_and_nothing_is_left_behind(photographs, tmp_path):
    spoil(photographs, ["train/blue/0.png", "train/red/1.png", "val/green/0.png"])
    with pytest.raises(DataError, match=r"(?s)^3 images cannot be read:\n.*--skip-bad$") as caught:
        prepare(photographs, tmp_path / "run")
    assert all(name in str(caught.value) for name in ("blue/0.png", "red/1.png", "green/0.png"))
    assert not (tmp_path / "run").exists()


def test_too_few_classes_for_a_batch_are_told_before_any_image_is_read(photographs, tmp_path):
    spoil(photographs, ["train/blue/0.png"])
    config = changed(changed(tiny_config(), "loss", triplet_weight=0.1), "training", batch_size=8, images_per_class=2)
    with pytest.raises(ArgumentError, match=r"needs 4 classes, but the data has 3: lower training\.batch_size to 6"):
        prepare_run(config, photographs, out=tmp_path / "run", skip_bad=False, console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_one_unreadable_image_is_told_in_the_singular(photographs, tmp_path):
    spoil(photographs, ["train/blue/0.png"])
    with pytest.raises(DataError, match=r"^1 image cannot be read:\n  \S.*\nmend them"):
        prepare(photographs, tmp_path / "run")


@pytest.mark.parametrize("keep_folder", [False, True])
def test_any_error_before_learning_removes_what_the_run_made(tmp_path, keep_folder):
    run = RunFolder.create(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), removed_unless_learned(run, keep_folder=keep_folder):
        _ = 1 / 0
    assert [path.name for path in tmp_path.rglob("*")] == (["run"] if keep_folder else [])


def test_a_run_that_has_learned_is_kept(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.last_checkpoint.touch()
    with pytest.raises(ZeroDivisionError), removed_unless_learned(run, keep_folder=False):
        _ = 1 / 0
    assert run.last_checkpoint.exists()


def test_unreadable_images_are_left_out_and_recorded_on_request(photographs, tmp_path):
    spoil(photographs, ["train/blue/0.png"])
    run = prepare(photographs, tmp_path / "run", skip_bad=True)
    skipped = json.loads(run.data_json.read_text(encoding="utf-8"))["skipped"]
    assert len(skipped) == 1
    assert "not an image" in next(iter(skipped.values()))
    assert len(load_data(run).splits["train"]) == 11


def test_a_taken_folder_is_refused_before_the_images_are_read(photographs, tmp_path):
    spoil(photographs, ["train/blue/0.png"])
    run = prepare(photographs, tmp_path / "run", skip_bad=True)
    with pytest.raises(RunError, match="already holds a run"):
        prepare(photographs, run.path)


def test_a_class_without_a_readable_image_is_named(photographs, tmp_path):
    spoil(photographs, [f"train/green/{index}.png" for index in range(4)])
    with pytest.raises(DataError, match=r"no readable training image of 1 of its 3 classes \(green\)"):
        prepare(photographs, tmp_path / "run", skip_bad=True)


def test_one_class_is_refused(photographs, tmp_path):
    for split in ("train", "val"):
        for name in ("blue", "green"):
            shutil.rmtree(photographs / split / name)
    with pytest.raises(DataError, match="class"):
        prepare(photographs, tmp_path / "run")


def test_without_out_the_run_is_named_by_recipe_and_data(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [prepare(photographs, None).path.as_posix() for _ in range(2)] == ["runs/tiny-birds-1", "runs/tiny-birds-2"]


def test_images_that_are_gone_are_named(photographs, tmp_path):
    run = prepare(photographs, tmp_path / "run")
    (photographs / "train" / "blue" / "2.png").unlink()
    with pytest.raises(DataError, match=r"blue/2\.png"):
        load_data(run)


def test_other_classes_are_refused(photographs, tmp_path):
    run = prepare(photographs, tmp_path / "run")
    for split in ("train", "val"):
        (photographs / split / "red").rename(photographs / split / "rouge")
    with pytest.raises(DataError, match="has 3 classes that are not the 3 of"):
        load_data(run)


def test_moved_data_is_found_at_its_new_place(photographs, tmp_path):
    run = prepare(photographs, tmp_path / "run")
    photographs.rename(tmp_path / "moved")
    move_data(run, tmp_path / "moved")
    assert len(load_data(run).splits["train"]) == 12


def test_a_relative_path_holds_from_any_directory(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = prepare(photographs.name, tmp_path / "run")
    monkeypatch.chdir("/")
    assert len(load_data(run).splits["val"]) == 6


def test_a_file_in_train_and_in_val_is_warned_of(photographs, tmp_path):
    shutil.copy(photographs / "train" / "blue" / "1.png", photographs / "val" / "blue" / "again.png")
    text = printed(photographs, tmp_path / "run")
    assert "WARNING: the same file is in train and in val" in text
    assert "1 image: val/blue/again.png" in text


def test_what_an_audit_found_of_test_is_warned_of_though_test_is_not_opened(photographs, tmp_path):
    (photographs / "test" / "blue").mkdir(parents=True)
    shutil.copy(photographs / "train" / "blue" / "1.png", photographs / "test" / "blue" / "again.png")
    audit(photographs, out=tmp_path / "audit")
    shutil.rmtree(photographs / "test")
    text = printed(photographs, tmp_path / "run")
    assert "WARNING: 1 of 1 test images have a copy in train" in text
    assert str(tmp_path / "audit" / "audit.json") in text


def test_an_audit_of_other_images_is_not_taken_for_one_of_these(photographs, tmp_path):
    (photographs / "test" / "blue").mkdir(parents=True)
    shutil.copy(photographs / "train" / "blue" / "1.png", photographs / "test" / "blue" / "again.png")
    audit(photographs, out=tmp_path / "audit")
    (photographs / "train" / "blue" / "2.png").unlink()
    assert "WARNING" not in printed(photographs, tmp_path / "run")


def test_without_copies_there_is_no_warning(photographs, tmp_path):
    assert "WARNING" not in printed(photographs, tmp_path / "run")


def test_the_held_out_images_are_those_of_their_own_seed_whatever_the_seed_of_training(photographs, tmp_path):
    def held_out(name, *, seed, validation_seed):
        config = changed(tiny_config(seed=seed), "data", validation_seed=validation_seed)
        console = Console(file=io.StringIO())
        run = prepare_run(config, photographs / "train", out=tmp_path / name, skip_bad=False, console=console)
        return json.loads(run.split_json.read_text(encoding="utf-8"))["splits"]["val"]

    assert held_out("a", seed=1, validation_seed=5) == held_out("b", seed=2, validation_seed=5)
    assert held_out("c", seed=5, validation_seed=None) == held_out("d", seed=2, validation_seed=5)
