"""Pixels prepared in NumPy are those that torch prepares, bit for bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from finevote.data.resizing import model_input, resize_pixels
from finevote.data.transforms import eval_transform, resize_image
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
