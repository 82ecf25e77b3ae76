"""From a photograph to the pixels that a model sees, in NumPy alone: what other runtimes do before they predict."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.errors import ArgumentError, suggest
from finevote.types import Preprocessing

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize_pixels(image: Image.Image, resize: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Squash an RGB image to `resize` (rows, columns) with antialiasing; return uint8 (rows, columns, 3).

    In integers, so it gives the same bytes on every machine.

    Raises:
        ArgumentError: `interpolation` is neither bilinear nor bicubic.
    """
    check_interpolation(interpolation)
    rows, columns = resize
    return np.array(image.resize((columns, rows), INTERPOLATIONS[interpolation]))


def check_interpolation(interpolation: str) -> None:
    """Raise ArgumentError unless images can be resized in this way."""
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(f"unknown interpolation {interpolation!r}{suggest(interpolation, INTERPOLATIONS)}")


def model_input(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the centre of resized pixels (..., h, w, 3) at the model's scale, (..., 3, H, W), bit for bit as in torch.

    Args:
        pixels: uint8, of `preprocessing.resize`.
        preprocessing: the size that is cut, mean and standard deviation.
    """
    rows, columns = preprocessing.image_size
    top, left = (round((whole - kept) / 2.0) for whole, kept in zip(pixels.shape[-3:-1], (rows, columns), strict=True))
    view = np.moveaxis(pixels[..., top : top + rows, left : left + columns, :], -1, -3)
    mean, std = (_column(values) for values in (preprocessing.mean, preprocessing.std))
    scaled: NDArray[Any] = view.astype(np.float32) * np.float32(1.0 / 255)  # as torchvision does
    return np.asarray((scaled - mean) / std, np.float32)


def _column(values: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)[:, None, None]
