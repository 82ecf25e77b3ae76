import numpy as np
import pytest

from finevote.audit.findings import ImageRef
from finevote.audit.inspection import (
    find_copies,
    find_similar,
    find_split_groups,
    find_uneven,
    find_unreadable,
    units_of,
)
from finevote.data.fingerprints import Fingerprint


def ref(name, split="train", class_name="a", group=None):
    return ImageRef(name, split, class_name, group)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def print_of(*, file=None, pixels="", bits=None, seed=0):
    return Fingerprint(file, pixels or f"pixels of {file}", bits, picture(seed), ())


def told(findings):
    return [(finding.kind, [image.id for image in finding.images]) for finding in findings]


def test_equal_files_are_told_once_and_not_as_equal_pixels():
    prints = [print_of(file="x"), print_of(file="x"), print_of(file="y")]
    found, numbers = find_copies([ref("1"), ref("2"), ref("3")], prints)
    assert told(found) == [("same_file", ["1", "2"])]
    assert numbers[0] == numbers[1] != numbers[2]


def test_the_same_pixels_in_other_files_are_told():
    prints = [print_of(file="x", pixels="p"), print_of(file="y", pixels="p")]
    found, _ = find_copies([ref("1"), ref("2")], prints)
    assert told(found) == [("same_pixels", ["1", "2"])]


def test_images_without_files_are_compared_by_their_pixels():
    found, _ = find_copies([ref("1"), ref("2")], [print_of(pixels="p"), print_of(pixels="p")])
    assert told(found) == [("same_pixels", ["1", "2"])]


def test_near_hashes_are_copies_only_if_the_pictures_look_alike():
    refs = [ref("1"), ref("2"), ref("3")]
    prints = [print_of(file="x", bits=0b111, seed=1), print_of(file="y", bits=0b110, seed=1)]
    prints.append(print_of(file="z", bits=0b101, seed=2))
    found, _ = find_copies(refs, prints)
    assert told(found) == [("near_duplicate", ["1", "2"])]
    assert found[0].score == pytest.approx(1.0)


def test_an_equal_and_a_near_copy_of_one_picture_are_all_told_together_too():
    prints = [print_of(file="x", bits=0, seed=1), print_of(file="x", bits=0, seed=1)]
    prints.append(print_of(file="y", bits=1, seed=1))
    found, _ = find_copies([ref("1"), ref("2"), ref("3")], prints)
    assert told(found) == [("same_file", ["1", "2"]), ("near_duplicate", ["1", "2", "3"])]


@pytest.mark.parametrize(
    ("second", "tags"),
    [
        (ref("2"), ()),
        (ref("2", split="test"), ("across_splits",)),
        (ref("2", class_name="b"), ("mixed_labels",)),
        (ref("2", group="h"), ("across_groups",)),
        (ref("2", split="val", class_name="b", group="h"), ("across_splits", "across_groups", "mixed_labels")),
    ],
)
def test_copies_are_tagged_with_what_is_wrong_with_them(second, tags):
    found, _ = find_copies([ref("1", group="g" if second.group else None), second], [print_of(file="x")] * 2)
    assert found[0].tags == tags


def test_an_image_without_a_group_is_in_no_other_group():
    found, _ = find_copies([ref("1", group="g"), ref("2")], [print_of(file="x")] * 2)
    assert found[0].tags == ()


def test_similar_embeddings_are_told_unless_they_are_copies():
    embeddings = np.array([[1, 0], [1, 0.01], [1, 0.02], [0, 1]], np.float32)
    found = find_similar([ref(str(n)) for n in range(4)], embeddings, np.array([0, 0, 1, 2]))
    assert told(found) == [("similar_embedding", ["0", "2"]), ("similar_embedding", ["1", "2"])]


def test_a_group_in_two_splits_is_told_with_its_numbers():
    refs = [ref("1", group="nest"), ref("2", group="nest"), ref("3", "test", group="nest"), ref("4", "test", group="x")]
    (finding,) = find_split_groups([*refs, ref("5"), ref("6", "test")])
    assert [image.id for image in finding.images] == ["1", "2", "3"]
    assert finding.detail == "group nest: 2 train, 1 test"


def test_empty_small_and_very_unequal_classes_are_told():
    refs = [ref(f"a{n}") for n in range(60)] + [ref(f"b{n}", class_name="b") for n in range(4)] + [ref("t", "test")]
    found = {finding.kind: finding for finding in find_uneven(refs, ["a", "b"])}
    assert found["empty_class"].detail == "test: 1 class: b"
    assert found["small_class"].detail == "b: 4 in train"
    assert found["imbalance"].detail == "a has 60 images in train, b 4"
    assert found["imbalance"].score == 15


def test_classes_of_like_sizes_are_not_told():
    refs = [ref(f"a{n}") for n in range(50)] + [ref(f"b{n}", class_name="b") for n in range(5)]
    assert find_uneven(refs, ["a", "b"]) == []


def test_copies_and_groups_are_one_unit():
    refs = [ref("1", group="g"), ref("2", group="g"), ref("3"), ref("4"), ref("5")]
    units = units_of(refs, np.array([0, 1, 1, 2, 3]))  # 2 and 3 are copies
    assert units[0] == units[1] == units[2]
    assert len(set(units)) == 3


def test_unreadable_images_are_told_with_the_reason():
    (finding,) = find_unreadable([ref("1"), ref("2")], {1: "it is cut"})
    assert (finding.images[0].id, finding.detail) == ("2", "it is cut")
