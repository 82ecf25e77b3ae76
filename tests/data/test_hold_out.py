import pytest

from finevote.data.hold_out import choose_classes, images_of_classes, without_classes
from finevote.data.synthetic import synthetic_source
from finevote.errors import ArgumentError

NAMES = ("a", "b", "c", "d", "e")


def birds():
    return synthetic_source(splits=("train", "val"), images_per_class={"train": 2, "val": 3})


def test_as_many_classes_as_asked_are_drawn_by_the_seed():
    drawn = [choose_classes(NAMES, 2, seed=seed) for seed in range(20)]
    assert all(len(set(names)) == 2 and sorted(names) == list(names) for names in drawn)
    assert drawn[0] == choose_classes(NAMES, 2, seed=0)
    assert {name for names in drawn for name in names} == set(NAMES)


def test_named_classes_are_held_out_in_the_order_of_all():
    assert choose_classes(NAMES, ("d", "a"), seed=0) == ("a", "d")
    assert choose_classes(NAMES, 0, seed=0) == ()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("a", "Corvela"), "there is no class 'Corvela' to hold out; allowed: a, b, c, d, e"),
        (4, "holding out 4 of 5 classes leaves fewer than two to learn: hold out at most 3"),
        (99, "holding out 99 of 5 classes"),
        (NAMES[:4], "holding out 4 of 5 classes"),
    ],
)
def test_classes_that_cannot_be_held_out_are_refused(wanted, words):
    with pytest.raises(ArgumentError, match=words):
        choose_classes(NAMES, wanted, seed=0)


def test_a_source_without_classes_names_every_other_image_as_before():
    source, held_out = birds(), ("Corvella alba", "Ibidella tessera")
    kept = without_classes(source, held_out)
    assert kept.class_names == tuple(name for name in source.class_names if name not in held_out)
    for split, records in source.splits.items():
        expected = {r.image_id: source.class_names[r.label] for r in records}
        found = {r.image_id: kept.class_names[r.label] for r in kept.splits[split]}
        assert found == {image_id: name for image_id, name in expected.items() if name not in held_out}
    assert kept.notes[-1] == "held out, to stand for the unknown: 2 classes: Corvella alba, Ibidella tessera"


def test_without_classes_to_hold_out_a_source_stays_as_it_is():
    source = birds()
    assert without_classes(source, ()) is source


def test_images_of_held_out_classes_have_no_label():
    source = birds()
    records = images_of_classes(source, ("Corvella alba",), split="val")
    assert [record.image_id for record in records] == [f"val/Corvella_alba/000{number}" for number in range(3)]
    assert {record.label for record in records} == {-1}
    assert images_of_classes(source, ("Corvella alba",), split="test") == ()
