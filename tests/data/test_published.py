"""Every published set in miniature, read from its content as its archives leave it."""

import json
import pickle
import shutil

import numpy as np
import pytest
from scipy.io import savemat

from finevote.data.catalogue import DATASETS
from finevote.data.registry import open_source, recognise
from finevote.errors import ArgumentError, DataError
from tests.data.miniatures import cells, make_miniature

EACH = sorted(DATASETS)
CLASS_NAMES = {
    "cub200": ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross"),
    "nabirds": ("Common Eider (Adult male)", "House Sparrow (817)", "House Sparrow (1010)"),
    "dogs": ("Chihuahua", "Shih-Tzu", "toy poodle"),
    "pets": ("Abyssinian", "American Bulldog", "Beagle"),
    "cars": ("AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"),
    "aircraft": ("707-320", "737-700", "DC-3", "F/A-18"),
    "aircraft_family": ("Boeing 707", "Boeing 737", "DC-3", "F/A-18"),
    "aircraft_manufacturer": ("Boeing", "Douglas Aircraft Company", "McDonnell Douglas"),
    "food101": ("apple pie", "baby back ribs", "baklava"),
    "inat2021": ("Lumbricus terrestris", "Sabella spallanzanii", "Eratigena duellica"),
    "inat2021_mini": ("Lumbricus terrestris", "Sabella spallanzanii", "Eratigena duellica"),
}
# Levels of one set lie in the same files: at a path they are known as the first.
AT_A_PATH = {"aircraft_family": "aircraft", "aircraft_manufacturer": "aircraft"}


@pytest.fixture
def miniature(tmp_path, monkeypatch):
    """Write a miniature and let the catalogue describe it in the place of the real set."""

    def make(name):
        made = make_miniature(name, tmp_path / name)
        monkeypatch.setitem(DATASETS, name, made.info)
        return made

    return make


@pytest.mark.parametrize("name", EACH)
def test_every_split_of_every_protocol_is_read_with_readable_classes_and_the_published_numbers(miniature, name):
    made = miniature(name)
    for protocol in made.info.protocols:
        splits = tuple(protocol.lists)
        source = open_source(f"{name}@{made.tree}", splits=splits, protocol=protocol.name)
        assert (source.name, source.protocol) == (name, protocol.name)
        assert source.notes == tuple(filter(None, [made.info.caveat]))
        assert source.class_names == CLASS_NAMES.get(name, source.class_names)
        for split, records in source.splits.items():
            assert len(records) == made.info.count(protocol, split) > 0
            assert {record.label for record in records} == set(range(made.info.num_classes))
            assert all(source.read(record).mode == "RGB" for record in records)
            assert [record.image_id for record in records] == sorted(record.image_id for record in records)
        assert pickle.loads(pickle.dumps((source.read, source.locate)))


def test_nabirds_has_its_hierarchy_as_taxonomy(miniature):
    made = miniature("nabirds")
    root = made.tree / "nabirds"
    taxonomy = open_source(root, splits=("train",)).taxonomy
    eider, *sparrows = taxonomy.lineages
    assert taxonomy.levels == ("category", "species", "family", "order")
    assert eider == (*["Common Eider (Adult male)"] * 3, "Ducks, Geese, and Swans")  # a shorter way than the real ones
    assert [names[0] for names in sparrows] == ["House Sparrow (817)", "House Sparrow (1010)"]
    with (root / "classes.txt").open("a") as classes, (root / "hierarchy.txt").open("w") as hierarchy:
        classes.write("3 Old World Sparrows\n4 House Sparrow\n5 Ducks\n6 Common Eider\n")
        hierarchy.write("1 0\n2 0\n3 2\n4 3\n5 1\n6 5\n295 6\n817 4\n1010 4\n")
    lineages = open_source(root, splits=("test",)).taxonomy.lineages
    assert lineages[0] == ("Common Eider (Adult male)", "Common Eider", "Ducks", "Ducks, Geese, and Swans")
    assert lineages[2] == ("House Sparrow (1010)", "House Sparrow", "Old World Sparrows", "Perching Birds")


@pytest.mark.parametrize("name", EACH)
def test_a_path_is_known_by_its_content_at_the_root_and_from_the_folder_above(miniature, name):
    made = miniature(name)
    info, root = recognise(made.tree)
    assert info.name == AT_A_PATH.get(name, name)
    assert recognise(root) == (info, root)
    moved = made.tree.parent / "moved and renamed"
    shutil.move(root, moved)
    source = open_source(moved, splits=("train",))
    assert source.name == str(moved)
    assert {record.path.parts[: len(moved.parts)] for record in source.splits["train"]} == {moved.parts}


@pytest.mark.parametrize("name", EACH)
def test_missing_images_are_counted_and_named_and_only_in_the_splits_that_are_asked_for(miniature, name):
    made = miniature(name)
    protocol = made.info.protocols[-1]
    hidden = open_source(f"{name}@{made.tree}", splits=("test",), protocol=protocol.name).splits["test"][:2]
    for record in hidden:
        record.path.unlink()
    assert open_source(f"{name}@{made.tree}", splits=("train",), protocol=protocol.name).splits.keys() == {"train"}
    if name.startswith("inat"):  # its lists are the folders themselves
        source = open_source(f"{name}@{made.tree}", splits=("test",), protocol=protocol.name)
        assert source.notes == ("4 test images, 6 as published",)
        return
    with pytest.raises(DataError, match=f"lacks 2 images: {hidden[0].image_id}, {hidden[1].image_id}: unpack"):
        open_source(f"{name}@{made.tree}", splits=("test",), protocol=protocol.name)


@pytest.mark.parametrize("name", ["flowers102", "aircraft"])
def test_trainval_trains_on_both_lists_and_has_no_validation(miniature, name):
    made = miniature(name)
    official = open_source(f"{name}@{made.tree}", splits=("train", "val"))
    whole = open_source(f"{name}@{made.tree}", splits=("train", "val"), protocol="trainval")
    assert official.protocol == "official"
    assert set(whole.splits) == {"train"}
    assert set(whole.splits["train"]) == {*official.splits["train"], *official.splits["val"]}


def test_an_unknown_protocol_is_told_with_those_there_are(miniature):
    made = miniature("flowers102")
    with pytest.raises(ArgumentError, match="flowers102 has no protocol 'trainvall'; did you mean 'trainval'"):
        open_source(f"flowers102@{made.tree}", splits=("train",), protocol="trainvall")


def test_a_set_without_public_test_labels_says_so(miniature):
    made = miniature("inat2021")
    with pytest.raises(DataError, match="inat2021 has no test images under the protocol official"):
        open_source(f"inat2021@{made.tree}", splits=("test",))


def test_the_banner_of_an_aircraft_is_cut_off(miniature):
    made = miniature("aircraft")
    source = open_source(f"aircraft@{made.tree}", splits=("test",))
    image = source.read(source.splits["test"][0])
    assert image.size == (40, 30)
    assert min(image.crop((0, 25, 40, 30)).getextrema(), key=lambda span: span[0])[0] < 250


def test_numbers_that_differ_from_the_published_ones_are_noted(tmp_path):
    made = make_miniature("cub200", tmp_path)
    source = open_source(made.tree, splits=("train", "test"))
    assert source.notes == (
        made.info.caveat,
        "3 classes, 200 as published",
        "12 train images, 5,994 as published",
        "6 test images, 5,794 as published",
    )


MALFORMED = [  # set, file below the tree, what it is made of the lines it has, what is told
    (
        "cub200",
        "CUB_200_2011/images.txt",
        lambda lines: ["1", *lines[1:3], "4"],
        r"images\.txt, bad rows \(2\): line 1: expected 'id path', but got '1'; line 4: expected 'id path', but got",
    ),
    (
        "cub200",
        "CUB_200_2011/image_class_labels.txt",
        lambda lines: [*lines, "99 1", "1 2"],
        r"image_class_labels\.txt, bad rows \(1\): 1 comes 2 times",
    ),
    (
        "cub200",
        "CUB_200_2011/image_class_labels.txt",
        lambda lines: [*lines[:-1], "99 1"],
        r"bad rows \(2\): 99 is not in images\.txt; 18 of images\.txt is missing",
    ),
    (
        "cub200",
        "CUB_200_2011/train_test_split.txt",
        lambda lines: [line.replace(" 0", " 2") for line in lines],
        r"train_test_split\.txt, bad rows \(6\): line 5: expected 'id 1-or-0', but got '5 2'",
    ),
    ("cub200", "CUB_200_2011/classes.txt", lambda lines: lines[:1], r"classes\.txt lacks 2 classes: 2, 3"),
    (
        "cub200",
        "CUB_200_2011/images.txt",
        lambda lines: ["1 ../../etc/passwd", *lines[1:]],
        r"lists 1 image: images/\.\./\.\./etc/passwd outside of itself",
    ),
    (
        "pets",
        "annotations/trainval.txt",
        lambda lines: ["Abyssinian_100 1 1", "beagle_7 x 2 1", *lines[2:]],
        r"trainval\.txt, bad rows \(2\): line 1: expected 'name class species breed', but got 'Abyssinian_100 1 1'",
    ),
    (
        "pets",
        "annotations/trainval.txt",
        lambda lines: [*lines, "beagle_7 1 2 1"],
        r"trainval\.txt, bad rows \(1\): class 1 is both Abyssinian and beagle",
    ),
    (
        "aircraft",
        "fgvc-aircraft-2013b/data/images_variant_train.txt",
        lambda lines: [*lines, "0034309 737-7", "0034409 DC 3"],
        r"images_variant_train\.txt, bad rows \(2\): unknown class '737-7'; unknown class 'DC 3'",
    ),
    (
        "food101",
        "food-101/meta/train.json",
        lambda _: ['{"apple_pie": ["apple_pie/1"], "baklava": "baklava/2", "pho": [3]}'],
        r"train\.json, bad rows \(2\): 'baklava' has no list of image names; 'pho' has",
    ),
    ("food101", "food-101/meta/train.json", lambda _: ['{"apple'], r"cannot read .*train\.json: .*: fetch it again"),
    (
        "food101",
        "food-101/meta/train.json",
        lambda _: ["[]"],
        r"train\.json holds a list, not a list of images for each",
    ),
]


@pytest.mark.parametrize(
    ("name", "file", "change", "told"), MALFORMED, ids=[f"{case[0]}-{n}" for n, case in enumerate(MALFORMED)]
)
def test_a_malformed_list_is_told_with_all_its_bad_rows(miniature, name, file, change, told):
    made = miniature(name)
    path = made.tree / file
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=told):
        open_source(f"{name}@{made.tree}", splits=("train",))


@pytest.mark.parametrize(
    ("name", "file", "content", "told"),
    [
        ("dogs", "train_list.mat", {"labels": np.array([[1]])}, "has no array 'file_list'"),
        ("dogs", "train_list.mat", {"file_list": cells(["a/b.jpg"], shape=(1, 1)), "labels": [1, 2]}, "1 files, but 2"),
        (
            "dogs",
            "train_list.mat",
            {"file_list": cells(["n1-a/b.jpg", "b.jpg"], shape=(2, 1)), "labels": [1, 2]},
            r"bad rows \(1\): 'b.jpg' of class 2 is not <folder>/<image>",
        ),
        (
            "dogs",
            "train_list.mat",
            {"file_list": cells(["n1-a/b.jpg", "n2-c/b.jpg"], shape=(2, 1)), "labels": [3, 3]},
            r"bad rows \(3\): class 3 is both n1-a and n2-c; class 1 has no image; class 2 has no image",
        ),
        ("dogs", "train_list.mat", {"file_list": ["a/b.jpg"], "labels": [0.5]}, "no whole numbers in 'labels'"),
        (
            "cars",
            "devkit/cars_meta.mat",
            {"class_names": cells(["a", "b"], shape=(1, 2))},
            r"class 3 is none of 1 to 2",
        ),
        ("cars", "devkit/cars_train_annos.mat", {"annotations": [1]}, "annotations without bbox_x1, bbox_y1, .*fname"),
    ],
)
def test_a_malformed_matlab_file_is_told(miniature, name, file, content, told):
    made = miniature(name)
    savemat(made.tree / file, content)
    with pytest.raises(DataError, match=told):
        open_source(f"{name}@{made.tree}", splits=("train",))


def test_an_entry_among_the_species_that_is_none_is_told(miniature):
    made = miniature("inat2021")
    (made.tree / "train" / "extra").mkdir()
    with pytest.raises(DataError, match=r"train has 1 entry: extra that are not 00000_Kingdom_\.\.\._Genus_species"):
        open_source(f"inat2021@{made.tree}", splits=("train",))


def test_lists_with_other_classes_are_told(miniature):
    made = miniature("food101")
    path = made.tree / "food-101" / "meta" / "test.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pho": ["apple_pie/1005649"]}))
    with pytest.raises(DataError, match="its lists train and test have other classes"):
        open_source(f"food101@{made.tree}", splits=("train", "test"))
