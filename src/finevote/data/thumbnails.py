"""Photographs made small, as JPEG files in memory that hold pixels and nothing else."""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.images import enough_pixels
from finevote.types import Record

_QUALITY = 80


def make_thumbnail(image: Image.Image, *, side_px: int) -> bytes:
    """Return an RGB image as a JPEG whose longer side is `side_px` or, where the image is smaller, as it is.

    Where and when it was taken, and what was written on it, are not in it.
    """
    small = Image.fromarray(_pixels(image, side_px=side_px))  # a new image: nothing hangs on it
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()


def make_thumbnails(
    records: Sequence[Record],
    *,
    read: Callable[[Record], Image.Image],
    side_px: int,
    advance: Callable[[int], None] | None = None,
) -> list[bytes]:
    """Return the thumbnail of each image; Raises as `read` does. `advance` is called with the number just done."""

    def make(record: Record) -> bytes:
        with enough_pixels((side_px, side_px)):
            return make_thumbnail(read(record), side_px=side_px)

    found = []
    with ThreadPoolExecutor() as pool:
        for thumbnail in pool.map(make, records):
            found.append(thumbnail)
            if advance is not None:
                advance(1)
    return found


def _pixels(image: Image.Image, *, side_px: int) -> NDArray[np.uint8]:
    small = image.copy()
    small.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(small)
