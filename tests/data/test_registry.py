from pathlib import Path

import pytest

from finevote.data.catalogue import DATASETS
from finevote.data.registry import data_root, open_source
from finevote.errors import ArgumentError, DataError
from tests.data.miniatures import make_miniature


def test_a_path_that_is_not_there_is_told_with_what_may_be_given(tmp_path):
    with pytest.raises(DataError, match=r"gone is not there: give a folder of class folders.*or the word synthetic"):
        open_source(tmp_path / "gone", splits=("train",))


def test_another_file_is_not_taken_for_a_table(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"a\.zip is a file, but neither a table \(\.csv, \.tsv, \.parquet\) nor an archive"
    ):
        open_source(str(tmp_path / "a.zip"), splits=("train",))


def test_an_unknown_split_is_told(tmp_path):
    with pytest.raises(ArgumentError, match="unknown split 'tset'; did you mean 'test'"):
        open_source(tmp_path, splits=("tset",))


def test_synthetic_gives_the_splits_asked_for():
    source = open_source("synthetic", splits=("train", "val"))
    assert set(source.splits) == {"train", "val"}
    record = source.splits["train"][0]
    assert source.read(record).mode == "RGB"


@pytest.fixture
def cub(tmp_path, monkeypatch):
    """Keep a miniature of CUB-200-2011 in the default folder and work beside it."""
    made = make_miniature("cub200", tmp_path)
    monkeypatch.setitem(DATASETS, "cub200", made.info)
    monkeypatch.setenv("FINEVOTE_DATA", str(tmp_path / "sets"))
    (tmp_path / "sets").mkdir()
    made.tree.rename(tmp_path / "sets" / "cub200")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made


@pytest.mark.usefixtures("cub")
def test_a_name_is_the_published_set_in_the_folder_of_all_sets():
    for data in ("cub200", "cub200@"):
        source = open_source(data, splits=("train",))
        assert (source.name, source.protocol, len(source.splits["train"])) == ("cub200", "official", 12)


@pytest.mark.usefixtures("cub")
def test_another_root_may_be_the_folder_of_all_sets_or_of_this_one(tmp_path):
    for root in (tmp_path / "sets", tmp_path / "sets" / "cub200", tmp_path / "sets" / "cub200" / "CUB_200_2011"):
        assert open_source(f"cub200@{root}", splits=("train",)).name == "cub200"


@pytest.mark.usefixtures("cub")
def test_a_path_that_is_there_comes_before_a_name(tmp_path, paint_classes):
    paint_classes(tmp_path / "work" / "cub200", {"mine": 2, "yours": 2})
    assert open_source("cub200", splits=("train",)).class_names == ("mine", "yours")
    assert open_source("cub200", splits=("train",)).argument is None
    assert len(open_source("cub200@", splits=("train",)).class_names) == 3


@pytest.mark.usefixtures("cub")
def test_an_argument_is_made_to_mean_the_same_from_any_folder(tmp_path, monkeypatch):
    lasting = [open_source(data, splits=()).argument for data in ("cub200", "cub200@", "cub200@../sets")]
    assert lasting == ["cub200@", "cub200@", f"cub200@{tmp_path / 'work' / '..' / 'sets'}"]
    monkeypatch.chdir("/")
    for data in lasting:
        assert len(open_source(data, splits=("train",)).splits["train"]) == 12


def test_a_name_nearly_right_is_put_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in ("cub_200", "cub_200@/data"):
        with pytest.raises(DataError, match=r"is not there; did you mean 'cub200'\?: give "):
            open_source(data, splits=("train",))


@pytest.mark.parametrize("data", ["synthetic", "birds"])
def test_a_protocol_is_for_sets_that_have_one(tmp_path, monkeypatch, paint_classes, data):
    paint_classes(tmp_path / "birds", {"mine": 2, "yours": 2})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=f"{data} is divided in one way only: leave the protocol 'trainval' out"):
        open_source(data, splits=("train",), protocol="trainval")


def test_the_folder_of_all_sets_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.delenv("FINEVOTE_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert data_root() == tmp_path / "finevote"
    monkeypatch.setenv("FINEVOTE_DATA", str(tmp_path / "sets"))
    assert data_root() == tmp_path / "sets"
    monkeypatch.delenv("FINEVOTE_DATA")
    monkeypatch.delenv("XDG_DATA_HOME")
    assert data_root() == Path.home() / ".local" / "share" / "finevote"
