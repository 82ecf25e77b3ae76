"""The catalogue must be whole and must not claim what it cannot know."""

import re

import pytest

from finevote.data.catalogue import DATASETS

each = pytest.mark.parametrize("info", DATASETS.values(), ids=DATASETS.keys())


def test_the_sets_are_those_of_the_papers():
    assert set(DATASETS) == {
        "flowers102",
        "cub200",
        "dogs",
        "nabirds",
        "pets",
        "cars",
        "aircraft",
        "aircraft_family",
        "aircraft_manufacturer",
        "food101",
        "inat2021",
        "inat2021_mini",
    }


@each
def test_every_entry_tells_what_a_person_must_know(info):
    assert info.title
    assert info.licence
    assert info.source_url
    assert info.pitfalls or info.caveat
    assert info.num_classes > 1
    assert info.protocols[0].name == "official"
    assert {part for protocol in info.protocols for lists in protocol.lists.values() for part in lists} <= set(
        info.num_images
    )
    assert info.count(info.protocols[0], "train") > info.num_classes


@each
def test_files_have_a_well_formed_hash_or_none_and_a_source_or_instructions(info):
    for file in info.files:
        assert re.fullmatch(r"[0-9a-f]{32}", file.md5 or "0" * 32)
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256 or "0" * 64)
        assert all(url.endswith(f"/{file.name}") for url in file.urls)
        assert file.urls or info.instructions


def test_sets_of_one_folder_share_its_files():
    by_folder = {}
    for info in DATASETS.values():
        for file in info.files:
            assert by_folder.setdefault((info.folder, file.name), file) == file


def test_both_ways_to_train_on_flowers_are_named_with_their_numbers():
    info = DATASETS["flowers102"]
    counts = {
        protocol.name: [info.count(protocol, split) for split in ("train", "val", "test")]
        for protocol in info.protocols
    }
    assert counts == {"official": [1020, 1020, 6149], "trainval": [2040, 0, 6149]}
