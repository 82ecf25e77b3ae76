import io
import pickle

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from finevote.build import build_eval_loader
from finevote.data.images import find_unreadable
from finevote.data.registry import open_source
from finevote.errors import DataError
from finevote.types import Preprocessing
from tests.data.hub_sets import CLASSES, columns, make_set, png

FIT = ("train", "val")


@pytest.fixture
def table(tmp_path, paint):
    """Write a table, and the images img/0.png to img/4.png beside it."""
    for number in range(5):
        paint(tmp_path / "img" / f"{number}.png")

    def write(text, *, name="set.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_delimiters_and_byte_order_marks_are_understood(table, delimiter, encoding):
    rows = [("path", "label"), ("img/0.png", "männlich"), ("img/1.png", "a b")]
    path = table("\r\n".join(delimiter.join(row) for row in rows) + "\r\n", encoding=encoding)
    source = open_source(path, splits=FIT)
    assert source.class_names == ("a b", "männlich")
    assert [(record.image_id, record.label) for record in source.splits["train"]] == [
        ("img/0.png", 1),
        ("img/1.png", 0),
    ]
    assert source.read(source.splits["train"][0]).size == (16, 12)


def test_split_and_group_columns_are_understood(table):
    path = table(
        "group,split,label,path\n"
        "g1,train,a,img/0.png\n"
        ",train,b,img/1.png\n"
        "g2,Validation,a,img/2.png\n"
        ",valid,b,img/3.png\n"
        "g3,test,a,img/4.png\n"
    )
    source = open_source(path, splits=("train", "val", "test"))
    ids = {split: [record.image_id[4] for record in records] for split, records in source.splits.items()}
    assert ids == {"train": ["0", "1"], "val": ["2", "3"], "test": ["4"]}
    assert [record.group for record in source.splits["train"]] == ["g1", None]


def test_quoted_fields_may_hold_the_delimiter(table):
    source = open_source(table('path,label\nimg/0.png,"a, small"\nimg/1.png,b\n'), splits=FIT)
    assert source.class_names == ("a, small", "b")


def test_missing_files_are_reported_together(table):
    rows = "".join(f"gone/{number}.jpg,a\n" for number in range(12))
    with pytest.raises(DataError, match=r"names 12 files: gone/0\.jpg, .*gone/9\.jpg, \.\.\. not found: .*relative to"):
        open_source(table("path,label\nimg/0.png,b\n" + rows), splits=FIT)


def test_missing_test_files_do_not_matter_to_fit(table):
    path = table("path,label,split\nimg/0.png,a,train\nimg/1.png,b,train\ngone.png,a,test\n")
    assert set(open_source(path, splits=FIT).splits) == {"train"}
    with pytest.raises(DataError, match=r"1 file: gone\.png not found"):
        open_source(path, splits=("test",))


def test_unknown_columns_are_named_with_the_allowed_ones(table):
    with pytest.raises(
        DataError,
        match=r"unknown columns 'file', 'species' and no column 'path', 'label'; allowed: path, label\[, split\]",
    ):
        open_source(table("file,species\nimg/0.png,a\n"), splits=FIT)


def test_a_column_given_twice_is_refused(table):
    with pytest.raises(DataError, match="columns given twice: label"):
        open_source(table("path,label,label\nimg/0.png,a,b\n"), splits=FIT)


def test_all_bad_rows_are_reported_together(table):
    path = table(
        "path,label,split\nimg/0.png,a,train\nimg/1.png,,train\nimg/0.png,b,train\nimg/2.png,b,dev\nimg/3.png,b\n ,b,\n"
    )
    with pytest.raises(DataError) as caught:
        open_source(path, splits=FIT)
    assert str(caught.value) == (
        f"{path}, bad rows (5): line 3: blank label; line 4: img/0.png is listed a second time; "
        "line 5: split 'dev' is none of train, val, test; line 6: has another number of fields than the header; "
        "line 7: blank path and split"
    )


def test_a_long_list_of_bad_rows_is_cut(table):
    with pytest.raises(DataError, match=r"bad rows \(40\): line 2: .*line 11: blank label; \.\.\.$"):
        open_source(table("path,label\n" + "x,\n" * 40), splits=FIT)


def test_a_quote_that_never_ends_is_told(table):
    with pytest.raises(DataError, match=r"bad rows \(1\): line 1: field larger than field limit .*the rest cannot"):
        open_source(table('path,label\n"' + "x" * 200_000), splits=FIT)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", r"set\.csv is empty: give a header line"), ("\n", "is empty"), ("path,label\n", "has no training images")],
)
def test_an_empty_table_is_told(table, text, message):
    with pytest.raises(DataError, match=message):
        open_source(table(text), splits=FIT)


def test_a_table_in_another_encoding_is_told(table):
    with pytest.raises(DataError, match="is not UTF-8 text: save it as UTF-8"):
        open_source(table("path,label\nimg/0.png,grün\n", encoding="latin-1"), splits=FIT)


def test_a_test_class_unknown_to_train_is_named(table):
    path = table("path,label,split\nimg/0.png,a,train\nimg/1.png,b,train\nimg/2.png,weed,test\n")
    with pytest.raises(DataError, match="the test split has 1 class: weed, not in train"):
        open_source(path, splits=("test",))


def test_the_same_image_under_two_spellings_is_a_duplicate(table):
    with pytest.raises(DataError, match=r"line 3: \./img/0\.png is listed a second time"):
        open_source(table("path,label\nimg/0.png,a\n./img/0.png,b\n"), splits=FIT)


@pytest.fixture
def parquet(tmp_path, table):  # noqa: ARG001 - `table` paints the images
    """Write a Parquet table beside the images img/0.png to img/4.png."""

    def write(values, *, name="set.parquet", **options):
        path = tmp_path / name
        pq.write_table(values if isinstance(values, pa.Table) else pa.table(values), path, **options)
        return path

    return write


def embedded(num_images, **others):
    """Return a table with its images inside, as the hub's library writes them."""
    return make_set({**columns(num_images), **others}, **{name: datasets.Value("string") for name in others})


def test_a_parquet_table_has_the_columns_of_a_csv(parquet):
    path = parquet(
        {
            "path": [f"img/{number}.png" for number in range(5)],
            "label": pa.array(["b", "a", "b", "a", "a"]).dictionary_encode(),
            "split": ["train", "train", "Validation", "val", "test"],
            "group": [7, 8, None, 7, 7],
        }
    )
    source = open_source(path, splits=("train", "val", "test"))
    assert source.class_names == ("a", "b")
    ids = {split: [record.image_id[4] for record in records] for split, records in source.splits.items()}
    assert ids == {"train": ["0", "1"], "val": ["2", "3"], "test": ["4"]}
    assert [record.group for record in source.splits["train"]] == ["7", "8"]
    assert source.splits["val"][0].group is None
    assert source.read(source.splits["train"][0]).size == (16, 12)


def test_all_bad_rows_of_a_parquet_table_are_reported_together(parquet):
    path = parquet(
        {
            "path": ["img/0.png", "img/1.png", "img/0.png", "img/2.png", None],
            "label": ["a", None, "b", "b", "b"],
            "split": ["train", "train", "train", "dev", "train"],
        }
    )
    with pytest.raises(DataError) as caught:
        open_source(path, splits=FIT)
    assert str(caught.value) == (
        f"{path}, bad rows (4): row 1: blank label; row 2: img/0.png is listed a second time; "
        "row 3: split 'dev' is none of train, val, test; row 4: blank path"
    )


def test_missing_files_of_a_parquet_table_are_told(parquet):
    with pytest.raises(DataError, match=r"names 1 file: gone\.png not found: paths are relative to"):
        open_source(parquet({"path": ["img/0.png", "gone.png"], "label": ["a", "b"]}), splits=FIT)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"file": ["a"], "label": ["x"]},
            r"unknown columns 'file' and no column 'path'; allowed: path, label\[, split\]",
        ),
        ({"path": ["a"], "label": [1.5]}, "column 'label' holds double; allowed are text and whole numbers"),
        ({"image": [b"x"], "species": ["a"]}, r"no column 'label'; allowed: image, label\[, split\]\[, group\]"),
        ({"image": ["a"], "label": ["x"]}, "column 'image' holds string, not images: bytes, or a struct of bytes"),
        ({"path": [], "label": []}, "has no training images"),
        ({"path": ["a"], "label": [None]}, "row 0: blank label"),
    ],
)
def test_columns_of_a_parquet_table_are_checked(parquet, values, message):
    with pytest.raises(DataError, match=message):
        open_source(parquet(values), splits=FIT)


def test_the_index_that_pandas_adds_is_passed_over(parquet):
    values = {"path": ["img/0.png", "img/1.png"], "label": ["a", "b"], "__index_level_0__": [4, 2]}
    assert len(open_source(parquet(values), splits=FIT).splits["train"]) == 2


def test_another_file_called_parquet_is_told(tmp_path):
    (tmp_path / "set.parquet").write_bytes(b"path,label\n")
    with pytest.raises(DataError, match=r"set\.parquet is not a Parquet table: "):
        open_source(tmp_path / "set.parquet", splits=FIT)


def test_images_inside_a_parquet_table_are_read_with_their_class_names(tmp_path):
    path = tmp_path / "set.parquet"
    embedded(6, split=["train"] * 4 + ["val", "test"], group=["g"] * 6, caption=["c"] * 6).to_parquet(path)
    source = open_source(path, splits=FIT)
    assert source.class_names == CLASSES
    assert [record.image_id for record in source.splits["train"]] == [f"row {number}" for number in range(4)]
    assert [record.label for record in source.splits["train"]] == [0, 1, 0, 1]
    assert source.splits["train"][0].group == "g"
    assert source.notes[0] == "columns not used: caption"
    with Image.open(io.BytesIO(png("blue", 4))) as expected:
        assert source.read(source.splits["val"][0]).tobytes() == expected.tobytes()


def test_plain_bytes_are_images_and_a_path_names_them(parquet):
    values = {"image": [png("blue", 0), png("red", 1)], "path": ["a.png", "b.png"], "label": [0, 1]}
    source = open_source(parquet(values), splits=FIT)
    assert [record.image_id for record in source.splits["train"]] == ["a.png", "b.png"]
    assert source.class_names == ("0", "1")
    assert source.read(source.splits["train"][1]).size == (24, 20)


def test_any_row_of_any_row_group_is_the_one_asked_for(parquet):
    values = {"image": [png("blue", number) for number in range(10)], "label": ["a", "b"] * 5}
    source = open_source(parquet(values, row_group_size=3), splits=FIT)
    read = pickle.loads(pickle.dumps(source.read))
    for number in (9, 0, 5, 2, 3, 9, 8):
        with Image.open(io.BytesIO(png("blue", number))) as expected:
            assert read(source.splits["train"][number]).tobytes() == expected.tobytes()


def test_loader_processes_read_images_inside_a_table(parquet):
    values = {"image": [png("blue", number) for number in range(10)], "label": ["a", "b"] * 5}
    source = open_source(parquet(values, row_group_size=3), splits=FIT)
    records = source.splits["train"]
    assert find_unreadable(source, records) == {}  # opens the table in threads of this process, before the fork
    preprocessing = Preprocessing((16, 16), (16, 16), (0.5,) * 3, (0.5,) * 3)
    shared = {"read": source.read, "preprocessing": preprocessing, "batch_size": 4}
    alone, together = (
        torch.cat([batch.images for batch in build_eval_loader(records, num_workers=number, **shared)])
        for number in (0, 2)
    )
    assert alone.equal(together)


def test_a_corrupt_image_inside_a_table_is_found_by_its_row(parquet):
    values = {"image": [png("blue", number) for number in range(30)], "label": ["a", "b"] * 15}
    values["image"][7] = values["image"][7][:70]
    values["image"][21] = None
    source = open_source(parquet(values, row_group_size=8), splits=FIT)
    unreadable = find_unreadable(source, source.splits["train"])
    assert list(unreadable) == ["row 7", "row 21"]
    assert unreadable["row 21"].endswith("in row 21 of " + source.name + ": the cell is empty")


def test_a_row_group_that_is_damaged_is_told_for_each_of_its_rows(parquet):
    images = [np.random.default_rng(number).bytes(4000) for number in range(4)]
    path = parquet(
        {"image": images, "label": ["a", "b"] * 2}, row_group_size=2, compression="zstd", use_dictionary=False
    )
    content = bytearray(path.read_bytes())
    content[100:200] = bytes(100)
    path.write_bytes(content)
    source = open_source(path, splits=FIT)
    assert "row 0" in find_unreadable(source, source.splits["train"])


def test_a_row_group_too_large_to_read_as_a_whole_is_refused(parquet, monkeypatch):
    monkeypatch.setattr("finevote.data.parquet.MAX_GROUP_BYTES", 1000)
    values = {"image": [png("blue", number) for number in range(4)], "label": ["a", "b"] * 2}
    with pytest.raises(DataError, match=r"row group 0 holds .* write the table with row_group_size=100, or put it"):
        open_source(parquet(values), splits=FIT)


def test_few_row_groups_stay_in_memory(parquet, monkeypatch):
    monkeypatch.setattr("finevote.data.parquet._KEPT_BYTES", 4000)
    values = {"image": [png("blue", number) for number in range(12)], "label": ["a", "b"] * 6}
    source = open_source(parquet(values, row_group_size=1), splits=FIT)
    for record in source.splits["train"]:
        source.read(record)
    kept = source.read._groups.kept
    assert list(kept) == [10, 11]
    assert sum(group.nbytes for group in kept.values()) <= 4000
