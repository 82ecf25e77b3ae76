import io

import numpy as np
import pytest
from PIL import Image

from finevote.data.oddities import KINDS, file_oddities, is_constant, picture_oddities


def noise(mode="RGB", size=(80, 100)):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,), "LA": (2,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return Image.fromarray(pixels, mode) if mode == "CMYK" else Image.fromarray(pixels)


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def kinds(oddities):
    assert all(oddity.kind in KINDS and oddity.detail for oddity in oddities)
    return [oddity.kind for oddity in oddities]


def test_a_plain_photograph_is_not_odd():
    image = noise()
    assert file_oddities(encoded(image, "JPEG"), suffix=".jpg") == []
    assert picture_oddities(image.size, np.asarray(image)) == []


@pytest.mark.parametrize(
    ("image", "suffix", "content", "kind"),
    [
        (noise("L"), ".png", "PNG", "grey"),
        (noise("CMYK"), ".jpg", "JPEG", "cmyk"),
        (noise("RGBA"), ".png", "PNG", "transparent"),
        (noise(), ".png", "JPEG", "wrong_extension"),
        (noise(), ".JPEG", "WEBP", "wrong_extension"),
    ],
    ids=["grey", "cmyk", "transparent", "jpeg named png", "webp named jpeg"],
)
def test_what_the_file_says_is_told(image, suffix, content, kind):
    assert kinds(file_oddities(encoded(image, content), suffix=suffix)) == [kind]


def test_an_alpha_channel_that_hides_nothing_is_not_odd():
    image = noise()
    image.putalpha(255)
    assert file_oddities(encoded(image), suffix=".png") == []


def test_several_frames_are_told():
    content = encoded(noise(), "GIF", save_all=True, append_images=[noise("L").convert("RGB")])
    assert "several_frames" in kinds(file_oddities(content, suffix=".gif"))


def test_a_photograph_that_exif_turns_is_told():
    image, exif = noise(), Image.Exif()
    exif[0x0112] = 6
    (oddity,) = file_oddities(encoded(image, "JPEG", exif=exif), suffix=".jpg")
    assert oddity == ("exif_rotated", "orientation 6")


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".jfif", ".photo"])
def test_another_ending_of_the_same_format_or_an_unknown_one_is_not_odd(suffix):
    assert file_oddities(encoded(noise(), "JPEG"), suffix=suffix) == []


@pytest.mark.parametrize(
    ("size", "kind"), [((63, 200), ["small", "long"]), ((64, 192), []), ((400, 100), ["long"]), ((63, 70), ["small"])]
)
def test_small_and_long_pictures_are_told(size, kind):
    thumbnail = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert kinds(picture_oddities(size, thumbnail)) == kind


def test_one_colour_all_over_is_told_with_the_colour_and_not_as_grey():
    thumbnail = np.full((64, 64, 3), 200, np.uint8)
    (oddity,) = picture_oddities((100, 100), thumbnail)
    assert oddity == ("constant", "red 200, green 200, blue 200")
    assert is_constant(thumbnail)


def test_a_grey_picture_stored_in_colour_is_told():
    grey = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    assert kinds(picture_oddities((100, 100), np.repeat(grey, 3, axis=2))) == ["grey"]
