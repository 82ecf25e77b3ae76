import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finevote.data.images import (
    decode_image,
    enough_pixels,
    find_unreadable,
    read_header,
    read_image,
    read_record,
    without,
)
from finevote.errors import DataError
from finevote.types import DataSource, Record


def test_exif_orientation_turns_the_image_upright(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10, 0] = 255  # left half red
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.size == (10, 20)
    assert np.array_equal(np.asarray(image), np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "LA", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.mode == "RGB"
    assert image.getpixel((4, 4)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_shades(tmp_path):
    Image.fromarray(np.full((9, 9), 0x8000, np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (128, 128, 128)


def test_an_image_of_fractions_is_refused_instead_of_read_as_black(tmp_path):
    Image.fromarray(np.full((9, 9), 0.5, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif: its pixels are fractions.*: save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def test_a_transparent_palette_is_read_without_warning(tmp_path):
    image = Image.new("P", (9, 9), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "a.png").getpixel((0, 0)) == (10, 20, 30)


def test_the_content_counts_not_the_suffix(tmp_path):
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "a.png")
    path = (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_image(path).getpixel((0, 0)) == (1, 2, 3)


def test_a_truncated_file_is_told_with_its_path(tmp_path, paint):
    path = paint(tmp_path / "cut.jpg", size=(64, 64))
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(DataError, match=r"cannot read the image .*cut\.jpg: .*truncated"):
        read_image(path)


def test_a_file_that_is_no_image_is_told(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"a\.jpg: not an image, or of an unknown format"):
        read_image(tmp_path / "a.jpg")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jpg: No such file or directory"):
        read_image(tmp_path / "gone.jpg")


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_an_image_under_eight_pixels_a_side_is_refused(tmp_path, paint, size):
    with pytest.raises(DataError, match=f"{size[0]}x{size[1]} pixels: at least 8 a side"):
        read_image(paint(tmp_path / "a.png", size=size))


def test_eight_pixels_a_side_are_enough(tmp_path, paint):
    assert read_image(paint(tmp_path / "a.png", size=(8, 8))).size == (8, 8)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("limit_of_pillow", [Image.MAX_IMAGE_PIXELS, None])
def test_a_decompression_bomb_is_refused_without_decoding(tmp_path, monkeypatch, limit_of_pillow):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit_of_pillow)
    monkeypatch.setattr(Image, "WARN_POSSIBLE_FORMATS", True)  # so that a file not known for a PNG is told with why
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bomb\.png: .*178,956,970( pixels)?: shrink it"):
        read_image(tmp_path / "bomb.png")


def test_an_image_between_the_warning_of_pillow_and_its_limit_is_read_silently(tmp_path, monkeypatch, paint):
    path = paint(tmp_path / "large.png", size=(16, 12))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(path):
        pass
    assert read_image(path).size == (16, 12)  # warnings are errors here


def make_source(paths: list[Path]) -> DataSource:
    records = tuple(Record(path.name, number % 2, path) for number, path in enumerate(paths))
    return DataSource("set", ("a", "b"), {"train": records}, read_record)


def test_three_corrupt_among_a_hundred_are_all_found(tmp_path, paint):
    source = make_source([paint(tmp_path / f"{number}.png") for number in range(100)])
    for number in (3, 50, 99):
        (tmp_path / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    done = []
    unreadable = find_unreadable(source, source.splits["train"], advance=done.append)
    assert list(unreadable) == ["3.png", "50.png", "99.png"]
    assert all("cannot read the image" in reason for reason in unreadable.values())
    assert sum(done) == 100
    assert len(without(source, unreadable).splits["train"]) == 97


def test_drawn_images_are_not_tried():
    def never(record: Record) -> Image.Image:
        raise AssertionError(record)

    records = (Record("a", 0), Record("b", 1))
    assert find_unreadable(DataSource("set", ("a", "b"), {"train": records}, never), records) == {}


def test_without_notes_what_it_left_out(tmp_path, paint):
    source = make_source([paint(tmp_path / f"{number}.png") for number in range(4)])
    assert without(source, ["1.png", "gone.png"]).notes == ("left out as unreadable: 1 of 4 images",)
    assert without(source, []) is source


def test_without_refuses_to_empty_a_split(tmp_path, paint):
    source = make_source([paint(tmp_path / "0.png"), paint(tmp_path / "1.png")])
    with pytest.raises(DataError, match="leaving out 2 images empties the train split"):
        without(source, ["0.png", "1.png"])


def test_a_record_without_a_file_cannot_be_read_from_disk():
    with pytest.raises(DataError, match="drawn has no file to read"):
        read_record(Record("drawn", 0))


def test_a_banner_is_cut_off_below_and_must_leave_a_photograph(tmp_path, paint):
    path = paint(tmp_path / "plane.png", size=(20, 40))
    whole = read_image(path)
    cut = read_record(Record("plane", 0, path, banner_px=20))
    assert cut.tobytes() == whole.crop((0, 0, 20, 20)).tobytes()
    with pytest.raises(DataError, match="40 rows are no more than the banner of 36 and 8 of a photograph"):
        read_record(Record("plane", 0, path, banner_px=36))


def test_the_header_tells_size_and_orientation_without_decoding(tmp_path, paint):
    path = paint(tmp_path / "photo.jpg", size=(40, 30))
    assert read_header(path) == (40, 30, 1)
    path.write_bytes(path.read_bytes()[:-100])
    assert read_header(path) == (40, 30, 1)
    with pytest.raises(DataError, match=r"cannot read the image .*gone\.jpg: No such file"):
        read_header(tmp_path / "gone.jpg")


@pytest.fixture
def jpeg(tmp_path):
    """A smooth JPEG of 160 x 96 px, each of its corners of another colour."""
    rows, columns = np.mgrid[0:96, 0:160]
    pixels = np.stack([rows * 255 // 95, columns * 255 // 159, 255 - rows], axis=-1).astype(np.uint8)

    def write(*, orientation=1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.jpg"
        Image.fromarray(pixels).save(path, quality=95, exif=exif)
        return path

    return write


@pytest.mark.parametrize(("enough", "size"), [((48, 80), (80, 48)), ((49, 80), (160, 96)), ((12, 20), (20, 12))])
def test_a_jpeg_is_decoded_at_the_least_part_of_its_size_that_is_enough(jpeg, enough, size):
    with enough_pixels(enough):
        small = read_image(jpeg())
    assert small.size == size
    whole = read_image(jpeg())
    assert whole.size == (160, 96)
    difference = np.asarray(small, float) - np.asarray(whole.resize(size, Image.Resampling.BOX), float)
    assert np.abs(difference).max() < 6


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_what_is_enough_is_counted_in_the_upright_image(jpeg, orientation):
    with enough_pixels((80, 48)):
        assert read_image(jpeg(orientation=orientation)).size == (48, 80)
    with enough_pixels((48, 80)):
        assert read_image(jpeg(orientation=orientation)).size == (96, 160)


def test_an_image_in_memory_is_decoded_at_the_least_size_too(jpeg):
    with enough_pixels((24, 40)):
        assert decode_image(jpeg().read_bytes(), name="a cell").size == (40, 24)


def test_a_banner_is_cut_in_whole_pixels_whatever_size_is_enough(jpeg):
    record = Record("a", 0, jpeg(), banner_px=20)
    with enough_pixels((8, 8)):
        small = read_record(record)
    assert small.size == (160, 76)
    assert np.array_equal(np.asarray(small), np.asarray(read_record(record)))


def test_an_image_of_another_format_is_read_whole(tmp_path, paint):
    with enough_pixels((8, 8)):
        assert read_image(paint(tmp_path / "a.png", size=(64, 48))).size == (64, 48)
