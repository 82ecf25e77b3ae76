import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from finevote.data.images import decode_image, read_image
from tests.data.profiles import SRGB_GREEN, SRGB_RED, make_profile

EXCHANGED = make_profile(red=SRGB_GREEN, green=SRGB_RED)


def encode(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_are_those_that_the_profile_means(mode):
    content = encode(Image.new(mode, (9, 9), "red"), icc_profile=EXCHANGED)
    read = np.asarray(decode_image(content, name="a"))[4, 4]
    np.testing.assert_allclose(read, (0, 255, 0), atol=12)  # the made curve is not quite that of sRGB


def test_a_file_and_its_bytes_are_read_alike(tmp_path):
    content = encode(Image.new("RGB", (9, 9), (200, 90, 30)), "JPEG", icc_profile=EXCHANGED)
    (tmp_path / "a.jpg").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "a.jpg"), decode_image(content, name="a"))


def test_a_profile_of_srgb_changes_no_bit():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    content = encode(Image.fromarray(pixels), icc_profile=profile)
    assert np.array_equal(decode_image(content, name="a"), pixels)


@pytest.mark.parametrize("profile", [b"no profile", EXCHANGED[:200], ImageCms.createProfile("LAB")])
def test_a_profile_that_is_broken_or_does_not_fit_is_passed_over(profile):
    whole = profile if isinstance(profile, bytes) else ImageCms.ImageCmsProfile(profile).tobytes()
    content = encode(Image.new("RGB", (9, 9), (10, 20, 30)), icc_profile=whole)
    assert decode_image(content, name="a").getpixel((4, 4)) == (10, 20, 30)


def test_only_the_formats_that_are_let_in_are_read():
    content = encode(Image.new("RGB", (9, 9)), "GIF")
    assert decode_image(content, name="a").size == (9, 9)
    with pytest.raises(Exception, match="cannot read the image a: not an image, or of an unknown format"):
        decode_image(content, name="a", formats=("JPEG", "PNG"))
