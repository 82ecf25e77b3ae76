import os

import pytest

from finevote.data import items
from finevote.data.registry import open_source
from finevote.errors import DataError

FIT = ("train", "val")


def test_class_folders_are_all_train(tmp_path, paint_classes):
    source = open_source(paint_classes(tmp_path, {"class10": 2, "class2": 3}), splits=FIT)
    assert source.class_names == ("class2", "class10")
    assert [(record.image_id, record.label) for record in source.splits["train"]] == [
        ("class2/0.png", 0),
        ("class2/1.png", 0),
        ("class2/2.png", 0),
        ("class10/0.png", 1),
        ("class10/1.png", 1),
    ]
    assert set(source.splits) == {"train"}
    assert source.read(source.splits["train"][0]).mode == "RGB"


@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_split_folders_become_splits(tmp_path, paint_classes, val):
    paint_classes(tmp_path / "train", {"a": 2, "b": 2})
    paint_classes(tmp_path / val, {"a": 1, "b": 1})
    paint_classes(tmp_path / "test", {"a": 1})
    source = open_source(tmp_path, splits=("train", "val", "test"))
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 4, "val": 2, "test": 1}
    assert source.splits["val"][1].image_id == f"{val}/b/0.png"
    assert source.notes == ("the test split has no images of 1 class: b",)


def test_fit_never_lists_the_test_folder(tmp_path, paint_classes, monkeypatch):
    for split in ("train", "val", "test"):
        paint_classes(tmp_path / split, {"a": 2, "b": 2})
    scandir = os.scandir

    def guarded(path):
        assert "test" not in os.fspath(path).removeprefix(str(tmp_path)), "listed the test folder"
        return scandir(path)

    monkeypatch.setattr(items.os, "scandir", guarded)
    assert set(open_source(tmp_path, splits=FIT).splits) == {"train", "val"}
    with pytest.raises(AssertionError, match="listed the test folder"):
        open_source(tmp_path, splits=("test",))


def test_the_test_split_alone_takes_its_classes_from_train(tmp_path, paint_classes):
    paint_classes(tmp_path / "train", {"a": 1, "b": 1, "c": 1})
    paint_classes(tmp_path / "test", {"c": 1, "a": 1})
    source = open_source(tmp_path, splits=("test",))
    assert source.class_names == ("a", "b", "c")
    assert set(source.splits) == {"test"}
    assert [record.label for record in source.splits["test"]] == [0, 2]


def test_a_class_called_train_is_not_a_split(tmp_path, paint_classes):
    source = open_source(paint_classes(tmp_path, {"train": 2, "car": 2}), splits=FIT)
    assert source.class_names == ("car", "train")


def test_two_names_for_one_split_are_refused(tmp_path, paint_classes):
    for split in ("train", "val", "valid"):
        paint_classes(tmp_path / split, {"a": 1, "b": 1})
    with pytest.raises(DataError, match="has both val/ and valid/: keep one"):
        open_source(tmp_path, splits=FIT)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_unknown_to_train_is_named(tmp_path, paint_classes, split):
    paint_classes(tmp_path / "train", {"a": 1, "b": 1})
    paint_classes(tmp_path / split, {"a": 1, "weed": 1})
    with pytest.raises(DataError, match=f"the {split} split has 1 class: weed, not in train"):
        open_source(tmp_path, splits=(split,))


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no class folders with images: lay the images out as <class>/<image>"):
        open_source(tmp_path, splits=FIT)


def test_images_without_class_folders_are_told(tmp_path, paint):
    paint(tmp_path / "a.png")
    with pytest.raises(DataError, match="holds no class folders with images"):
        open_source(tmp_path, splits=FIT)


def test_one_class_is_told(tmp_path, paint_classes):
    with pytest.raises(DataError, match="has only one class, 'rose': telling apart needs at least two"):
        open_source(paint_classes(tmp_path, {"rose": 3}), splits=FIT)


def test_a_class_with_one_image_is_allowed_and_noted(tmp_path, paint_classes):
    source = open_source(paint_classes(tmp_path, {"a": 3, "b": 1}), splits=FIT)
    assert source.notes == ("only one training image in 1 class: b: too few to learn from or to validate on",)


def test_other_files_are_counted_and_hidden_ones_passed_over(tmp_path, paint_classes):
    paint_classes(tmp_path, {"a": 2, "b": 2, "empty": 0})
    (tmp_path / "readme.txt").write_text("")
    (tmp_path / "a" / "Thumbs.db").write_text("")
    (tmp_path / "a" / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "a" / "._0.png").write_text("")
    (tmp_path / ".git").mkdir()
    source = open_source(tmp_path, splits=FIT)
    assert source.class_names == ("a", "b")
    assert source.notes == (
        "ignored 4 items: a/broken.jpg, a/Thumbs.db, empty, readme.txt (neither an image nor a folder of images)",
    )


@pytest.mark.parametrize("name", ["caf\udce9/0.png", "a/caf\udce9.png"], ids=["folder", "file"])
def test_a_name_that_is_not_utf8_is_told(tmp_path, paint_classes, name):
    paint_classes(tmp_path, {"a": 1, "b": 1})
    try:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match=r"caf\\udce9.* has a name that is not valid UTF-8: rename it"):
        open_source(tmp_path, splits=FIT)


def test_split_folders_may_be_capitals(tmp_path, paint_classes):
    for split, count in (("Train", 2), ("VAL", 1), ("Test", 1)):
        paint_classes(tmp_path / split, {"a": count, "b": count})
    source = open_source(tmp_path, splits=("train", "val", "test"))
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 4, "val": 2, "test": 2}


def test_names_may_be_of_any_script_and_have_spaces(tmp_path, paint):
    paint(tmp_path / "Blaue Ente (männlich)" / "mein bild 1.JPG")
    paint(tmp_path / "木蓮" / "写真.Jpeg")
    source = open_source(tmp_path, splits=FIT)
    assert source.class_names == ("Blaue Ente (männlich)", "木蓮")
    assert [source.read(record).size for record in source.splits["train"]] == [(16, 12), (16, 12)]


def test_accents_stored_in_two_ways_are_one_class(tmp_path, paint):
    paint(tmp_path / "train" / "caf\u00e9" / "0.png")
    paint(tmp_path / "train" / "tea" / "0.png")
    paint(tmp_path / "val" / "cafe\u0301" / "0.png")
    source = open_source(tmp_path, splits=FIT)
    assert [record.label for record in source.splits["val"]] == [0]


def test_symbolic_links_are_followed(tmp_path, paint_classes):
    store = paint_classes(tmp_path / "store", {"a": 1, "b": 1})
    root = tmp_path / "set"
    (root / "x").mkdir(parents=True)
    (root / "x" / "link.png").symlink_to(store / "a" / "0.png")
    (root / "y").symlink_to(store / "b")
    source = open_source(root, splits=FIT)
    assert [record.image_id for record in source.splits["train"]] == ["x/link.png", "y/0.png"]


def test_a_folder_without_permission_is_told(tmp_path, paint_classes, monkeypatch):
    paint_classes(tmp_path, {"a": 1, "locked": 1})
    scandir = os.scandir

    def locked(path):
        if os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(items.os, "scandir", locked)
    with pytest.raises(DataError, match=r"cannot list the folder .*locked: Permission denied: check"):
        open_source(tmp_path, splits=FIT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_really_locked_folder_is_told(tmp_path, paint_classes):
    paint_classes(tmp_path, {"a": 1, "b": 1})
    tmp_path.chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied"):
            open_source(tmp_path, splits=FIT)
    finally:
        tmp_path.chmod(0o700)


def test_asking_for_a_test_split_that_is_not_there_is_told(tmp_path, paint_classes):
    with pytest.raises(DataError, match="has no test images: add a test split"):
        open_source(paint_classes(tmp_path, {"a": 1, "b": 1}), splits=("test",))
