import itertools
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from finevote.data.synthetic import SPECIES, synthetic_source
from finevote.data.synthetic_drawing import compose, draw, draw_pose, part_box
from finevote.data.synthetic_shapes import GENERA, PART_RADIUS, PATTERNS, SUBJECT_RADIUS
from finevote.errors import ArgumentError, DataError
from finevote.evaluation.controls import color_histogram_accuracy
from finevote.types import Record

FEW = {"train": 3, "val": 2, "test": 2}
# mean brightness of 4 x 4 tiles of train/Corvella_alba/0007, seed 0, 64 px
GOLDEN_TILES = [
    [138.1, 134.4, 156.6, 167.5],
    [130.1, 106.3, 142.1, 160.5],
    [125.2, 120.5, 86.0, 132.9],
    [119.5, 138.4, 143.2, 146.9],
]
PAIRS = [(a, b) for a, b in itertools.combinations(SPECIES, 2) if a.genus.name == b.genus.name]


def covered(boxes, size):
    """Mark the pixels that a box touches, (size, size)."""
    mask = np.zeros((size, size), dtype=bool)
    for box in boxes:
        left, top = int(np.floor(box.left * size)), int(np.floor(box.top * size))
        mask[top : int(np.ceil(box.bottom * size)), left : int(np.ceil(box.right * size))] = True
    return mask


def test_there_are_twelve_species_in_four_genera():
    assert len({species.name for species in SPECIES}) == 12
    assert [species.genus.name for species in SPECIES] == [name for name in GENERA for _ in range(3)]


def test_species_of_a_genus_differ_in_one_or_two_of_the_same_parts():
    for first, second in PAIRS:
        assert first.patterns.keys() == second.patterns.keys()
        assert 1 <= sum(first.patterns[part] != second.patterns[part] for part in first.patterns) <= 2


def test_every_genus_needs_both_of_its_parts_to_be_told_apart():
    for genus in GENERA:
        species = [s for s in SPECIES if s.genus.name == genus]
        for part in species[0].patterns:
            assert len({s.patterns[part] for s in species}) == 2


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda species: species.name)
def test_in_the_same_scene_two_species_differ_only_inside_the_boxes_of_the_parts_that_differ(first, second):
    size = 128
    for seed in range(6):
        scene = compose(first.genus, np.random.default_rng(seed))
        images = [draw(species.genus, species.patterns, scene, image_size=size) for species in (first, second)]
        differs = np.any(np.asarray(images[0]) != np.asarray(images[1]), axis=2)
        parts = [part for part in first.patterns if first.patterns[part] != second.patterns[part]]
        boxes = [part_box(first.genus, part, scene.pose) for part in parts]
        assert not np.any(differs & ~covered(boxes, size))
        for box in boxes:
            assert differs[covered([box], size)].mean() > 0.1


@given(seed=st.integers(0, 2**63))
def test_part_boxes_are_small_and_within_the_image_in_every_pose(seed):
    pose = draw_pose(np.random.default_rng(seed))
    for genus in GENERA.values():
        for part in genus.parts:
            box = part_box(genus, part, pose)
            assert 0 < box.left < box.right < 1
            assert 0 < box.top < box.bottom < 1
            assert (box.right - box.left) * (box.bottom - box.top) < 0.04


def test_the_whole_bird_stays_within_the_subject_circle():
    for genus in GENERA.values():
        points = np.concatenate([layer.points for layer in (*genus.rim, *genus.body)])
        assert np.hypot(*points.T).max() <= SUBJECT_RADIUS
        assert max(np.hypot(*centre) for centre in genus.parts.values()) + PART_RADIUS <= SUBJECT_RADIUS


def test_patterns_stay_within_the_disc_of_their_part():
    for layers in PATTERNS.values():
        assert max(np.hypot(*layer.points.T).max() for layer in layers) < 1


def painted(pose, layers, size):
    """Mark the pixels that the layers cover, (size, size)."""
    mask = Image.new("1", (size, size))
    for layer in layers:
        ImageDraw.Draw(mask).polygon((pose.apply(layer.points) * size).ravel().tolist(), fill=1)
    return np.asarray(mask)


def test_distractors_stay_off_the_body():
    for number, genus in itertools.product(range(20), GENERA.values()):
        scene = compose(genus, np.random.default_rng(number))
        body = painted(scene.pose, (*genus.rim, *genus.body), 128)
        for distractor in scene.distractors:
            assert not np.any(body & painted(distractor.pose, PATTERNS[distractor.pattern], 128))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), number=st.integers(0, 2))
def test_an_image_is_a_function_of_seed_and_id(seed, number):
    sources = [synthetic_source(splits=splits, seed=seed, image_size=48, images_per_class=FEW)
               for splits in (("train",), ("test", "train"))]  # fmt: skip
    records = [source.splits["train"][number] for source in sources]
    images = [np.asarray(source.read(record)) for source, record in zip(sources, records, strict=True)]
    assert records[0] == records[1]
    np.testing.assert_array_equal(*images)


def test_images_are_the_same_on_every_machine():
    source = synthetic_source(splits=("train",), image_size=64)
    record = source.splits["train"][7]
    tiles = np.asarray(source.read(record)).reshape(4, 16, 4, 16, 3).mean((1, 3, 4))
    assert record.image_id == "train/Corvella_alba/0007"
    np.testing.assert_allclose(tiles, GOLDEN_TILES, atol=1.0)


def test_another_seed_gives_other_images():
    images = []
    for seed in (0, 1):
        source = synthetic_source(splits=("val",), seed=seed, image_size=48, images_per_class=FEW)
        images.append(np.asarray(source.read(source.splits["val"][0])))
    assert np.abs(images[0].astype(int) - images[1]).mean() > 5


def test_image_size_changes_the_pixels_and_not_the_boxes():
    small, large = (synthetic_source(splits=("val",), image_size=size, images_per_class=FEW) for size in (48, 96))
    assert small.splits == large.splits
    assert large.read(large.splits["val"][0]).size == (96, 96)
    assert large.read(large.splits["val"][0]).mode == "RGB"


def test_only_the_splits_asked_for_are_listed():
    source = synthetic_source(splits=("train", "val"), images_per_class=FEW)
    assert {split: len(records) for split, records in source.splits.items()} == {"train": 36, "val": 24}


def test_ids_are_unique_over_the_splits():
    source = synthetic_source(splits=("train", "val", "test"), images_per_class=FEW)
    ids = [record.image_id for records in source.splits.values() for record in records]
    assert len(set(ids)) == len(ids) == 12 * 7


def test_no_image_is_in_two_splits():
    source = synthetic_source(splits=("train", "val", "test"), image_size=32, images_per_class=FEW)
    images = [source.read(record).tobytes() for records in source.splits.values() for record in records]
    assert len(set(images)) == len(images)


def test_reading_travels_to_another_process():
    source = synthetic_source(splits=("val",), image_size=48, images_per_class=FEW)
    read = pickle.loads(pickle.dumps(source.read))
    assert read(source.splits["val"][5]).tobytes() == source.read(source.splits["val"][5]).tobytes()


def test_labels_follow_the_class_names():
    source = synthetic_source(splits=("val",), images_per_class=FEW)
    for record in source.splits["val"]:
        assert record.image_id.split("/")[1].replace("_", " ") == source.class_names[record.label]


def test_colour_alone_does_not_tell_the_species():
    source = synthetic_source(splits=("train", "test"), image_size=48, images_per_class={"train": 40, "test": 20})
    images = {split: map(source.read, records) for split, records in source.splits.items()}
    labels = {split: [record.label for record in records] for split, records in source.splits.items()}
    assert color_histogram_accuracy(images["train"], labels["train"], images["test"], labels["test"]) < 0.25


@pytest.mark.slow
def test_colour_alone_does_not_tell_the_species_of_the_set_as_it_is():
    source = synthetic_source(splits=("train", "test"))
    images = {split: map(source.read, records) for split, records in source.splits.items()}
    labels = {split: [record.label for record in records] for split, records in source.splits.items()}
    assert color_histogram_accuracy(images["train"], labels["train"], images["test"], labels["test"]) < 0.40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": ("trian",)}, "unknown split 'trian'; did you mean 'train'?"),
        ({"splits": ("val",), "images_per_class": {"dev": 3}}, "unknown split 'dev'"),
        ({"splits": ("val",), "images_per_class": {"val": -1}}, "images_per_class['val']=-1 must be 0 or more"),
        ({"splits": ("val",), "image_size": 8}, "image_size=8 must be 32 px or more"),
        ({"splits": ("val",), "seed": -1}, "seed=-1 must be 0 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        synthetic_source(**arguments)


@pytest.mark.parametrize(
    "image_id", ["", "photo.jpg", "train/Corvella_alba", "dev/Corvella_alba/0001", "val/Corvus/0001"]
)
def test_a_foreign_record_is_refused(image_id):
    source = synthetic_source(splits=("val",), images_per_class=FEW)
    with pytest.raises(DataError, match="is not a synthetic image: expected an id such as"):
        source.read(Record(image_id=image_id, label=0))


def test_the_boxes_of_a_record_are_those_of_its_pose_at_any_size_and_survive_a_loader_process():
    source = synthetic_source(splits=("test",), image_size=64)
    record = source.splits["test"][45]
    assert [box.name for box in source.regions(record).parts] == list(SPECIES[record.label].patterns)
    assert pickle.loads(pickle.dumps(source.locate))(record) == source.regions(record)
    assert synthetic_source(splits=("test",)).regions(record) == source.regions(record)
    assert source.regions(record) != source.regions(source.splits["test"][46])
