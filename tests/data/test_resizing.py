"""Pixels prepared in NumPy are those that torch prepares, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from finevote.data.images import read_image
from finevote.data.resizing import model_input, read_pixels, resize_in_16_bits, resize_pixels
from finevote.data.transforms import eval_transform, read_resized, resize_image
from finevote.errors import ArgumentError
from finevote.types import Preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def photograph(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize(("resize", "size"), [((36, 36), (32, 32)), ((37, 53), (32, 48)), ((40, 41), (40, 32))])
def test_the_model_sees_the_same_bits(resize, size):
    preprocessing = Preprocessing(image_size=size, resize=resize, **IMAGENET)
    image = photograph(91, 67)
    pixels = resize_pixels(image, resize, "bicubic")
    ours = eval_transform(preprocessing)(resize_image(image, resize, "bicubic"))
    assert torch.equal(torch.from_numpy(model_input(pixels[None], preprocessing))[0], ours)


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ArgumentError, match="unknown interpolation 'nearest'; allowed: bicubic, bilinear"):
        resize_pixels(photograph(9, 9), (8, 8), "nearest")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("width", "height", "resize"),
    [
        (91, 67, (36, 36)),
        (640, 480, (256, 320)),
        (50, 40, (80, 64)),
        (33, 500, (33, 33)),
        (100, 75, (75, 100)),
        (8, 9, (3, 5)),
    ],
)
def test_16_bits_are_those_of_torch(width, height, resize, interpolation):
    pixels = np.array(photograph(width, height))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    theirs = torch.nn.functional.interpolate(tensor, resize, mode=interpolation, antialias=True)[0]
    assert np.array_equal(resize_in_16_bits(pixels, resize, interpolation), theirs.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_a_photograph_is_read_to_the_same_bytes(decoding, tmp_path):
    path = tmp_path / "large.jpg"
    photograph(300, 200).resize((1200, 800)).save(path, quality=90)
    preprocessing = Preprocessing(image_size=(96, 96), resize=(110, 110), decoding=decoding, **IMAGENET)
    pixels = read_pixels(lambda: read_image(path), preprocessing)
    assert np.array_equal(pixels, read_resized(lambda: read_image(path), preprocessing).permute(1, 2, 0).numpy())


def test_an_unknown_decoding_is_refused():
    preprocessing = Preprocessing(image_size=(8, 8), resize=(8, 8), decoding="quick", **IMAGENET)
    with pytest.raises(ArgumentError, match="unknown decoding 'quick'; allowed: exact, fast"):
        read_pixels(lambda: photograph(9, 9), preprocessing)
