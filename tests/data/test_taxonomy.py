import re

import pytest

from finevote.data.hold_out import without_classes
from finevote.data.registry import open_source
from finevote.data.synthetic import synthetic_source
from finevote.data.taxonomy import lineages_from_parents, read_taxonomy
from finevote.errors import DataError
from finevote.types import Taxonomy
from tests.tiny import write_photographs

CLASSES = ("blue", "green", "red")
TABLE = "colour,kind,all\nred,warm,colours\ngreen,cold,colours\nblue,cold,colours\n"
EXPECTED = Taxonomy(
    ("colour", "kind", "all"),
    (("blue", "cold", "colours"), ("green", "cold", "colours"), ("red", "warm", "colours")),
)


def write(path, text=TABLE):
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_rows_are_brought_into_the_order_of_the_classes(tmp_path):
    assert read_taxonomy(write(tmp_path / "t.csv"), CLASSES) == EXPECTED


@pytest.mark.parametrize(
    "form",
    [
        *(TABLE.replace(",", mark) for mark in ";\t"),
        *(TABLE.replace("\n", end) for end in ("\r\n", "\r", "\n\n")),
        "\ufeff" + TABLE,
    ],
)
def test_other_separators_a_mark_and_blank_lines_are_read(tmp_path, form):
    assert read_taxonomy(write(tmp_path / "t.csv", form), CLASSES) == EXPECTED


def test_a_taxonomy_comes_back_from_json():
    assert Taxonomy.from_dict(EXPECTED.to_dict()) == EXPECTED


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TABLE.partition("\n")[2], "its first line is of the class red: put a line with these above it"),
        ('"' + TABLE, "must begin with"),
        ("", "must begin with the names of two or more levels.*it has nothing"),
        ("colour\nred\n", "must begin with the names of two or more levels.*it has colour"),
        (TABLE.replace("kind", "colour"), "it has colour, colour, all"),
        (TABLE + "rad,warm,colours\n", "line 5: there is no class 'rad'; did you mean 'red'"),
        (TABLE + "red,warm,colours\n" * 2, r"bad rows \(2\): line 5: red is listed a second time"),
        (TABLE.replace("green,cold", "green,"), "line 3: 3 names are needed, none of them blank"),
        (TABLE.replace("blue,cold,colours\n", ""), "has no row for 1 class: blue: add them"),
        (TABLE.replace("green,cold,colours", "green,cold,tints"), "kind cold is in all colours and all tints"),
    ],
)
def test_a_table_that_is_no_taxonomy_of_the_classes_is_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_taxonomy(write(tmp_path / "t.csv", text), CLASSES)


def test_all_bad_rows_are_told_together(tmp_path):
    text = "colour,kind\nred,\nrad,warm\nrod,warm\n"
    with pytest.raises(DataError, match=re.escape("bad rows (3)")):
        read_taxonomy(write(tmp_path / "t.csv", text), CLASSES)


def test_the_one_in_a_folder_is_found_and_not_told_as_a_stray_file(tmp_path):
    root = write_photographs(tmp_path / "birds")
    assert open_source(root, splits=("train",)).taxonomy is None
    write(root / "taxonomy.csv")
    for place in (root, root / "train"):
        write(place / "taxonomy.csv")
        source = open_source(place, splits=("train", "val"))
        assert source.taxonomy == EXPECTED
        assert not any("ignored" in note for note in source.notes)


def test_the_one_beside_a_table_is_found(tmp_path):
    root = write_photographs(tmp_path / "birds")
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in root.glob("train/*/*.png")]
    table = write(tmp_path / "birds.csv", "\n".join(["path,label", *rows]))
    write(tmp_path / "taxonomy.csv")
    assert open_source(table, splits=("train",)).taxonomy == EXPECTED


def test_drawn_birds_have_their_genera():
    source = synthetic_source(splits=("train",))
    assert source.taxonomy.levels == ("species", "genus")
    assert [names[0] for names in source.taxonomy.lineages] == list(source.class_names)
    assert all(species.startswith(genus) for species, genus in source.taxonomy.lineages)
    assert len({genus for _, genus in source.taxonomy.lineages}) == 4


def test_classes_that_are_held_out_leave_the_taxonomy_too():
    source = without_classes(synthetic_source(splits=("train",)), ("Corvella alba", "Ibidella tessera"))
    assert [names[0] for names in source.taxonomy.lineages] == list(source.class_names)


def test_the_way_to_a_leaf_begins_below_the_root():
    assert lineages_from_parents([5, 4, 0], {5: 3, 3: 1, 4: 1, 1: 0}) == [[1, 3, 5], [1, 4], [0]]
    with pytest.raises(DataError, match="goes round in a circle"):
        lineages_from_parents([1], {1: 2, 2: 3, 3: 2})
