import json
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.data.splits import describe_setting, describe_split, restore_split, with_validation
from finevote.errors import ArgumentError, DataError
from finevote.types import DataSource, Record

groups = st.none() | st.sampled_from("ghijk")
labelled = st.lists(st.tuples(st.integers(0, 3), groups), min_size=1, max_size=40)


def make_source(rows) -> DataSource:
    records = tuple(Record(f"{number:03d}", label, group=group) for number, (label, group) in enumerate(rows))
    return DataSource("set", ("a", "b", "c", "d"), {"train": records}, read=lambda _: None)


def ids(source, split):
    return [record.image_id for record in source.splits[split]]


def test_a_share_of_every_class_is_held_out():
    source = with_validation(
        make_source([(label, None) for label in range(4) for _ in range(20)]), fraction=0.2, seed=0
    )
    assert Counter(record.label for record in source.splits["val"]) == dict.fromkeys(range(4), 4)
    assert source.notes == ("no validation split given: held out 16 of 80 training images (seed 0)",)


def test_a_given_validation_split_is_kept():
    source = make_source([(0, None), (0, None), (1, None)])
    source = replace(source, splits={**source.splits, "val": (Record("v", 0),)})
    assert with_validation(source, fraction=0.5, seed=0) is source


def test_an_empty_validation_split_counts_as_none():
    source = make_source([(0, None), (0, None), (1, None)])
    source = replace(source, splits={**source.splits, "val": ()})
    assert len(with_validation(source, fraction=0.5, seed=0).splits["val"]) == 1


def test_a_class_with_one_image_stays_in_train():
    source = with_validation(make_source([(0, None)] * 4 + [(1, None)]), fraction=0.5, seed=0)
    assert {record.label for record in source.splits["val"]} == {0}
    assert "004" in ids(source, "train")


def test_one_group_a_class_cannot_be_divided():
    with pytest.raises(DataError, match=r"no class has two groups .* to divide"):
        with_validation(make_source([(0, "g")] * 3 + [(1, "h")] * 3), fraction=0.5, seed=0)


def test_a_class_of_large_groups_still_gives_one_whole_group():
    source = with_validation(make_source([(0, "g")] * 5 + [(0, "h")] * 3 + [(1, None)] * 10), fraction=0.1, seed=0)
    assert {record.group for record in source.splits["val"] if record.label == 0} == {"h"}
    assert [record.group for record in source.splits["val"]].count("h") == 3


@given(labelled, st.floats(0.05, 0.95), st.integers(0, 5))
def test_images_are_divided_groups_kept_whole_and_classes_kept_in_train(rows, fraction, seed):
    source = make_source(rows)
    try:
        divided = with_validation(source, fraction=fraction, seed=seed)
    except DataError:
        return
    train, val = divided.splits["train"], divided.splits["val"]
    assert sorted(ids(divided, "train") + ids(divided, "val")) == ids(source, "train")
    named = {record.group for record in train if record.group} & {record.group for record in val if record.group}
    assert not named
    assert {record.label for record in train} == {record.label for record in source.splits["train"]}


@given(labelled, st.floats(0.05, 0.95))
def test_every_class_of_lone_images_is_stratified(rows, fraction):
    source = make_source([(label, None) for label, _ in rows])
    sizes = Counter(label for label, _ in rows)
    if max(sizes.values()) < 2:
        return
    held_out = Counter(record.label for record in with_validation(source, fraction=fraction, seed=0).splits["val"])
    for label, size in sizes.items():
        assert held_out[label] == min(size - 1, max(1, round(size * fraction)))


def test_the_choice_depends_on_names_and_seed_not_on_order():
    source = make_source([(number % 3, None) for number in range(60)])
    turned = replace(source, splits={"train": source.splits["train"][::-1]})
    chosen = [
        set(ids(with_validation(one, fraction=0.3, seed=seed), "val"))
        for one, seed in [(source, 1), (turned, 1), (source, 2)]
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_nothing_to_divide_is_told():
    with pytest.raises(DataError, match="no class has two images to divide"):
        with_validation(make_source([(0, None), (1, None)]), fraction=0.2, seed=0)


def test_a_fraction_of_zero_leaves_all_images_to_training_and_says_so():
    source = make_source([(0, None)] * 3 + [(1, None)])
    whole = with_validation(source, fraction=0, seed=0)
    assert whole.splits == source.splits
    assert whole.notes == ("no validation: all 4 training images are trained on and the last epoch is kept",)


def test_a_source_that_gained_a_validation_split_is_restored_without_it():
    source = make_source([(0, None)] * 3)
    saved = json.loads(json.dumps(describe_split(source)))
    gained = replace(source, splits={**source.splits, "val": (Record("new", 0),), "test": (Record("t", 0),)})
    restored = restore_split(gained, saved)
    assert restored.splits == {**source.splits, "test": gained.splits["test"]}
    assert restored.notes == ("left out, being new since the run's split: 1 of 4",)


@pytest.mark.parametrize(
    ("protocol", "num_val", "is_held_out", "words"),
    [
        (None, 1, False, "trained on 3 images, epoch chosen on 1 of validation"),
        ("official", 1, True, "protocol official: trained on 3 images, epoch chosen on 1 held out of training"),
        ("trainval", 0, True, "protocol trainval: trained on 3 images, kept after the last epoch, without validation"),
    ],
)
def test_the_setting_of_a_number_is_told_in_words(protocol, num_val, is_held_out, words):
    source = make_source([(0, None)] * 3)
    splits = {**source.splits, "val": (Record("v", 0),) * num_val}
    assert describe_setting(replace(source, splits=splits, protocol=protocol), is_held_out=is_held_out) == words


@pytest.mark.parametrize("fraction", [1, -0.1])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(ArgumentError, match="must be at least 0 and below 1"):
        with_validation(make_source([(0, None)] * 4), fraction=fraction, seed=0)


def test_a_saved_split_comes_back_through_json():
    source = make_source([(number % 4, None) for number in range(40)])
    divided = with_validation(source, fraction=0.2, seed=7)
    saved = json.loads(json.dumps(describe_split(divided)))
    restored = restore_split(source, saved)
    assert restored.splits == divided.splits
    assert "held out 8 of 40" in saved["notes"][0]


def test_missing_images_of_a_saved_split_are_named():
    divided = with_validation(make_source([(number % 2, None) for number in range(10)]), fraction=0.2, seed=0)
    with pytest.raises(DataError, match="lacks 2 images: 008, 009 of the run's split"):
        restore_split(make_source([(number % 2, None) for number in range(8)]), describe_split(divided))


def test_new_images_are_left_out_of_a_saved_split_and_test_is_untouched():
    divided = with_validation(make_source([(number % 2, None) for number in range(10)]), fraction=0.2, seed=0)
    grown = make_source([(number % 2, None) for number in range(12)])
    grown = replace(grown, splits={**grown.splits, "test": (Record("t", 0),)})
    restored = restore_split(grown, describe_split(divided))
    assert restored.splits == {**divided.splits, "test": (Record("t", 0),)}
    assert restored.notes == ("left out, being new since the run's split: 2 of 12",)


def test_groups_are_kept_together():
    rows = [(number % 4, "ghijk"[number % 5]) for number in range(200)]
    divided = with_validation(make_source(rows), fraction=0.25, seed=3)
    where = defaultdict(set)
    for split, records in divided.splits.items():
        for record in records:
            where[record.group].add(split)
    assert all(len(splits) == 1 for splits in where.values())
    assert {"val"} in where.values()
