import pickle

import numpy as np
import pytest
from PIL import Image

from finevote.data.images import read_record
from finevote.data.regions import Annotation, PixelBox, VocFinder, to_regions, turn_box
from finevote.data.registry import open_source
from finevote.errors import DataError
from finevote.types import Box, Record, Regions
from tests.data.miniatures import make_miniature, voc

SUBJECT = (0.2, 0.2, 0.7, 0.7)  # 8, 6 to 28, 21 of 40 x 30 px


def sides(box):
    return (box.left, box.top, box.right, box.bottom)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_image(tmp_path, orientation):
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[3:12, 20:36] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    record = Record("turned", 0, path)
    found = to_regions(record, Annotation(subject=PixelBox(20, 3, 36, 12)), subject="bird").subject
    upright = np.asarray(read_record(record))[..., 0] > 0
    height, width = upright.shape
    rows, columns = np.nonzero(upright)
    expected = (columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height)
    assert sides(found) == pytest.approx(expected)


def test_turning_four_times_by_a_quarter_comes_back():
    sides = (0.1, 0.2, 0.3, 0.7)
    turned = sides
    for _ in range(4):
        turned = turn_box(turned, 6)
    assert turned == pytest.approx(sides)


def test_the_banner_is_no_part_of_the_image_that_boxes_refer_to(tmp_path):
    Image.new("RGB", (40, 50)).save(tmp_path / "plane.png")
    record = Record("plane", 0, tmp_path / "plane.png", banner_px=20)
    regions = to_regions(record, Annotation(subject=PixelBox(8, 6, 28, 40)), subject="aircraft")
    assert sides(regions.subject) == pytest.approx((0.2, 0.2, 0.7, 1.0))


def test_a_point_becomes_a_square_of_a_tenth_of_the_subjects_longer_side(tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "bird.png")
    annotation = Annotation(subject=PixelBox(10, 10, 50, 30), points=(("beak", 20.0, 20.0), ("tail", 300.0, 20.0)))
    regions = to_regions(Record("bird", 0, tmp_path / "bird.png"), annotation, subject="bird")
    (beak,) = regions.parts  # the tail lies outside of the image
    assert beak.name == "beak"
    assert sides(beak) == pytest.approx((0.18, 0.36, 0.22, 0.44))


@pytest.mark.parametrize("name", ["cub200", "nabirds", "dogs", "cars", "aircraft"])
def test_subjects_of_published_sets_are_located_in_what_is_read(tmp_path, name):
    made = make_miniature(name, tmp_path)
    source = open_source(f"{name}@{made.tree}", splits=("train", "test"))
    locate = pickle.loads(pickle.dumps(source.locate))
    for record in (*source.splits["train"], *source.splits["test"]):
        regions = source.regions(record)
        assert regions.subject.name == made.info.subject
        assert sides(regions.subject) == pytest.approx(SUBJECT)
        assert locate(record) == regions


@pytest.mark.parametrize(("name", "part", "point"), [("cub200", "back", (10, 12)), ("nabirds", "bill", (10, 12))])
def test_visible_parts_of_birds_are_small_boxes_and_hidden_ones_are_not_there(tmp_path, name, part, point):
    source = open_source(f"{name}@{make_miniature(name, tmp_path).tree}", splits=("train",))
    for record in source.splits["train"]:
        (box,) = source.regions(record).parts
        assert box.name == part
        assert (40 * (box.left + box.right) / 2, 30 * (box.top + box.bottom) / 2) == pytest.approx(point)
        assert 40 * (box.right - box.left) == pytest.approx(2.0)


def test_heads_of_pets_are_parts_where_they_are_annotated(tmp_path):
    source = open_source(f"pets@{make_miniature('pets', tmp_path).tree}", splits=("train", "test"))
    assert source.regions(source.splits["train"][0]) == Regions(parts=(Box("head", *SUBJECT),))
    assert source.regions(source.splits["test"][0]) == Regions()


def test_sets_without_boxes_have_no_regions(tmp_path):
    source = open_source(f"food101@{make_miniature('food101', tmp_path).tree}", splits=("train",))
    assert source.locate is None
    assert source.regions(source.splits["train"][0]) == Regions()


def test_boxes_that_were_not_unpacked_are_done_without(tmp_path):
    made = make_miniature("cub200", tmp_path)
    (made.tree / "CUB_200_2011" / "bounding_boxes.txt").unlink()
    assert open_source(made.tree, splits=("train",)).locate is None


def test_a_malformed_table_of_boxes_is_told_with_all_its_bad_rows(tmp_path):
    made = make_miniature("cub200", tmp_path)
    (made.tree / "CUB_200_2011" / "bounding_boxes.txt").write_text("1 2 3 4\n2 1 1 1 1\n3 a 1 1 1\n")
    source = open_source(made.tree, splits=("train",))
    with pytest.raises(DataError, match=r"bounding_boxes\.txt, bad rows \(2\): line 1: expected 'id x y width height'"):
        source.regions(source.splits["train"][0])


class Beside:
    """Finds a VOC file beside its image."""

    def __call__(self, record):
        return record.path.with_suffix(".xml")


@pytest.fixture
def record(tmp_path):
    Image.new("RGB", (80, 60)).save(tmp_path / "dog.png")
    return Record("dog", 0, tmp_path / "dog.png")


def test_the_largest_of_several_subjects_counts_in_pixels_of_the_size_that_is_told(record):
    record.path.with_suffix(".xml").write_text(voc("dog", [(0, 0, 4, 3), (8, 6, 28, 21)]))
    assert VocFinder(Beside(), subject="dog")(record) == Regions(subject=Box("dog", *SUBJECT))


def test_without_a_size_the_pixels_are_the_images(record):
    text = voc("dog", [(16, 12, 56, 42)]).replace("<width>40", "<width>0")
    record.path.with_suffix(".xml").write_text(text)
    assert VocFinder(Beside(), subject="dog")(record) == Regions(subject=Box("dog", *SUBJECT))


@pytest.mark.parametrize("text", ["", "<annotation>", voc("dog", []) + "x", voc("dog", [("a", 1, 2, 3)])])
def test_a_broken_voc_file_is_told(record, text):
    record.path.with_suffix(".xml").write_text(text)
    with pytest.raises(DataError, match=r"cannot read the boxes in .*dog\.xml: .*unpack the annotations again"):
        VocFinder(Beside(), subject="dog")(record)
