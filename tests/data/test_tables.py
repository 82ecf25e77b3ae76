import pytest

from finevote.data.registry import open_source
from finevote.errors import DataError

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
