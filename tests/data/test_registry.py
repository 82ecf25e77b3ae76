import pytest

from finevote.data.registry import open_source
from finevote.errors import ArgumentError, DataError


def test_a_path_that_is_not_there_is_told_with_what_may_be_given(tmp_path):
    with pytest.raises(DataError, match=r"gone is not there: give a folder of class folders.*or the word synthetic"):
        open_source(tmp_path / "gone", splits=("train",))


def test_another_file_is_not_taken_for_a_table(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.zip is a file, but not a table \(\.csv, \.tsv, \.parquet\)"):
        open_source(str(tmp_path / "a.zip"), splits=("train",))


def test_an_unknown_split_is_told(tmp_path):
    with pytest.raises(ArgumentError, match="unknown split 'tset'; did you mean 'test'"):
        open_source(tmp_path, splits=("tset",))


def test_synthetic_gives_the_splits_asked_for():
    source = open_source("synthetic", splits=("train", "val"))
    assert set(source.splits) == {"train", "val"}
    record = source.splits["train"][0]
    assert source.read(record).mode == "RGB"
