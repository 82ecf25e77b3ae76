import io

import numpy as np
import pytest
from PIL import Image

from finevote.data.images import read_record
from finevote.data.thumbnails import make_thumbnail, make_thumbnails
from finevote.errors import DataError
from finevote.types import Record


@pytest.mark.parametrize(("size", "expected"), [((400, 200), (64, 32)), ((150, 300), (32, 64)), ((20, 10), (20, 10))])
def test_the_longer_side_is_as_asked_and_nothing_is_enlarged(size, expected):
    assert Image.open(io.BytesIO(make_thumbnail(Image.new("RGB", size), side_px=64))).size == expected


def test_a_thumbnail_tells_nothing_but_pixels():
    exif = Image.Exif()
    exif[0x010E] = "at home"
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), "green").save(buffer, "JPEG", exif=exif, comment=b"at home", icc_profile=b"profile")
    content = make_thumbnail(Image.open(buffer), side_px=64)
    assert b"at home" in buffer.getvalue()
    small = Image.open(io.BytesIO(content))
    assert b"at home" not in content
    assert not small.getexif()
    assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_thumbnails_come_in_order_and_are_counted(tmp_path):
    records = []
    for number, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (80, 60), color).save(tmp_path / f"{number}.png")
        records.append(Record(str(number), 0, tmp_path / f"{number}.png"))
    counts = []
    found = make_thumbnails(records, read=read_record, side_px=16, advance=counts.append)
    means = [np.asarray(Image.open(io.BytesIO(one))).reshape(-1, 3).mean(axis=0).argmax() for one in found]
    assert means == [0, 1, 2]
    assert counts == [1, 1, 1]


def test_a_photograph_that_cannot_be_read_any_more_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the image .*gone\.png"):
        make_thumbnails([Record("gone", 0, tmp_path / "gone.png")], read=read_record, side_px=16)
