"""Reading photographs, and finding those that cannot be read before anything depends on them."""

import io
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from rich.console import Console

from finevote.data.colours import in_srgb
from finevote.errors import DataError
from finevote.progress import Meter
from finevote.types import DataSource, Record

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})
MAX_PIXELS = 178_956_970  # a quarter of a gigapixel is a mistake or an attack; Pillow's own limit is the same
MIN_SIDE = 8
_SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF orientations that swap rows and columns
_opening = threading.Lock()  # the filters of warnings belong to all threads
_enough: ContextVar[tuple[int, int] | None] = ContextVar("_enough", default=None)


@contextmanager
def enough_pixels(size: tuple[int, int] | None) -> Iterator[None]:
    """Say that images read inside the block are needed at `size` (rows, columns) only; None: as they are.

    A JPEG of at least 2, 4 or 8 times that size is decoded at a half, a quarter or an eighth of its sides, which takes
    less time; everything else is read as it is. The hint reaches every source, whatever calls lie between.
    """
    token = _enough.set(size)
    try:
        yield
    finally:
        _enough.reset(token)


def read_image(path: Path) -> Image.Image:
    """Return the photograph at `path` as sRGB by its colour profile, turned upright by its EXIF orientation.

    Raises:
        DataError: the file is missing, truncated, corrupt, over 178,956,970 pixels, or under 8 pixels a side.
    """
    try:
        with path.open("rb") as file:
            return upright_rgb(_shrunk(open_quietly(file)))
    except Exception as error:  # a decoder may raise anything at all on a broken file
        raise DataError(f"cannot read the image {path}: {_reason(error)}") from error


def decode_image(content: bytes, *, name: str, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Return an encoded photograph as `read_image` does; `name` says in messages where it comes from.

    `formats` are Pillow's names of those that are let in; all that it knows unless given.

    Raises:
        DataError: as `read_image`.
    """
    try:
        return upright_rgb(_shrunk(open_quietly(io.BytesIO(content), formats=formats)))
    except Exception as error:  # as above
        raise DataError(f"cannot read the image {name}: {_reason(error)}") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an opened image as sRGB by its colour profile, turned upright by its EXIF orientation.

    Raises:
        DataError: it is over 178,956,970 pixels, or under 8 pixels a side.
    """
    _check_size(image)
    return _as_rgb(ImageOps.exif_transpose(image))


def read_record(record: Record) -> Image.Image:
    """Return the image of a record that has a file, its banner cut off; see `read_image`."""
    if record.path is None:
        raise DataError(f"{record.image_id} has no file to read")
    if not record.banner_px:
        return read_image(record.path)
    with enough_pixels(None):  # a banner is measured in whole pixels
        image = read_image(record.path)
    if image.height < record.banner_px + MIN_SIDE:
        raise DataError(
            f"cannot read the image {record.path}: {image.height} rows are no more than the banner of "
            f"{record.banner_px} and {MIN_SIDE} of a photograph"
        )
    return image.crop((0, 0, image.width, image.height - record.banner_px))


def read_header(path: Path) -> tuple[int, int, int]:
    """Return width and height in pixels as stored, and the EXIF orientation (1 to 8), without decoding.

    Raises:
        DataError: the file is missing or not an image.
    """
    try:
        with path.open("rb") as file:
            image = open_quietly(file)
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            return image.width, image.height, orientation if orientation in range(1, 9) else 1
    except Exception as error:  # a decoder may raise anything at all on a broken file
        raise DataError(f"cannot read the image {path}: {_reason(error)}") from error


def open_quietly(file: BinaryIO, *, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Read the header, without Pillow's warning from half of the pixels on that it refuses: `_check_size` decides."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(file, formats=formats)


def find_unreadable(
    source: DataSource, records: Sequence[Record], *, advance: Callable[[int], None] | None = None
) -> dict[str, str]:
    """Decode every image once and return {image_id: reason} for those that fail, in the order of `records`.

    Images that are drawn in code have no file and are not tried. `advance` is called with the number of images done
    since its last call.
    """

    def problem(record: Record) -> str | None:
        if record.path is None and record.cell is None:
            return None
        try:
            source.read(record)
        except DataError as error:
            return str(error)
        return None

    unreadable = {}
    pool = ThreadPoolExecutor()  # Pillow decodes without holding the interpreter
    try:
        for record, reason in zip(records, pool.map(problem, records), strict=True):
            if reason is not None:
                unreadable[record.image_id] = reason
            if advance is not None:
                advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return unreadable


def check_images(source: DataSource, splits: Sequence[str], *, console: Console | None = None) -> dict[str, str]:
    """Return what `find_unreadable` finds in some splits, with a progress bar."""
    records = [record for split in splits for record in source.splits.get(split, ())]
    with Meter("check images", total=len(records), console=console) as meter:
        return find_unreadable(source, records, advance=meter.advance)


def without(source: DataSource, image_ids: Collection[str]) -> DataSource:
    """Return the source less the named images, with a note; names that it does not have are passed over.

    Raises:
        DataError: a split would be left empty.
    """
    left_out = set(image_ids)
    splits = {
        split: tuple(record for record in records if record.image_id not in left_out)
        for split, records in source.splits.items()
    }
    emptied = [split for split, records in splits.items() if not records and source.splits[split]]
    if emptied:
        raise DataError(f"{source.name}: leaving out {len(left_out)} images empties the {emptied[0]} split: mend them")
    num_before, num_after = (sum(map(len, some.values())) for some in (source.splits, splits))
    if num_before == num_after:
        return source
    note = f"left out as unreadable: {num_before - num_after} of {num_before} images"
    return replace(source, splits=splits, notes=(*source.notes, note))


def _shrunk(image: Image.Image) -> Image.Image:
    """Return an opened image that will be decoded at as little of its size as is enough, if that was said."""
    size = _enough.get()
    if size is not None:
        _check_size(image)
        is_sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
        image.draft(None, size if is_sideways else size[::-1])  # does nothing to what is no JPEG
    return image


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{width}x{height} pixels exceed {MAX_PIXELS:,}: shrink it")
    if min(width, height) < MIN_SIDE:
        raise DataError(f"{width}x{height} pixels: at least {MIN_SIDE} a side are needed")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel: Pillow's own conversion would clip nearly all of it to white
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # Pillow would clip it to 0 and 255: an image in [0, 1] would be read as black
        raise DataError("its pixels are fractions, of which no file says what is white: save it with 8 or 16 bits")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return in_srgb(image if image.mode in ("CMYK", "L") else image.convert("RGB")).convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or of an unknown format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than {MAX_PIXELS:,} pixels: shrink it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
