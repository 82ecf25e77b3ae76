"""What may be given for a photograph: a path, a PIL image, an array of pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.images import read_image, upright_rgb
from finevote.errors import ArgumentError, DataError

ImageLike = Image.Image | Path | str | NDArray[np.uint8]


class Photograph(NamedTuple):
    """A photograph that is still to be read, and its true class where that is known."""

    image_id: str
    read: Callable[[], Image.Image]
    true_name: str | None = None


def open_given(image: ImageLike) -> Image.Image:
    """Return it as an RGB image, upright.

    Raises:
        ArgumentError: it is none of these, or an array of another form than uint8 (rows, columns, 3).
        DataError: it cannot be read.
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        try:
            return upright_rgb(image)
        except OSError as error:
            raise DataError(f"cannot read the image: {error}") from error
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return upright_rgb(Image.fromarray(image))
    got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ArgumentError(f"an image must be a path, a PIL image or a uint8 array (rows, columns, 3), but got {got}")


def name_of(image: Any, number: int) -> str:
    """Return what an image is called in its answer: its path where it has one."""
    if isinstance(image, (str, Path)):
        return str(image)
    return str(getattr(image, "filename", "") or f"image {number}")
