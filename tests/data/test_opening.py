import pytest

from finevote.data.opening import data_argument, open_every_split
from finevote.errors import DataError


def test_every_split_is_opened(paint_classes, tmp_path):
    for split in ("train", "val", "test"):
        paint_classes(tmp_path / split, {"a": 1, "b": 1})
    assert set(open_every_split(tmp_path).splits) == {"train", "val", "test"}


def test_an_absent_test_split_is_noted(paint_classes, tmp_path):
    source = open_every_split(paint_classes(tmp_path, {"a": 2, "b": 2}))
    assert set(source.splits) == {"train"}
    assert "there is no test split, which training does not need" in source.notes


def test_data_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        open_every_split(tmp_path / "nothing")


def test_the_argument_means_the_same_from_anywhere(paint_classes, tmp_path, monkeypatch):
    paint_classes(tmp_path / "birds", {"a": 2, "b": 2})
    monkeypatch.chdir(tmp_path)
    assert data_argument("birds", open_every_split("birds")) == str(tmp_path / "birds")
    assert data_argument("synthetic", open_every_split("synthetic")) == "synthetic"
