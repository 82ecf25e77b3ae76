"""What is kept of each image to find it again: hashes of its file and pixels, a perceptual hash, a thumbnail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.oddities import Oddity, file_oddities, is_constant, picture_oddities
from finevote.errors import DataError
from finevote.types import Record

THUMBNAIL_SIDE = 64


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of one image.

    `file_sha256` is None for an image that is no file. `pixels_hash` is of the decoded picture: equal for the same
    pixels in another format. `perceptual_hash` (64 bits) hardly changes when a picture is resized or compressed; None
    for one in which nothing can be seen. `thumbnail` is the whole picture squashed to (64, 64, 3) uint8.
    """

    file_sha256: str | None
    pixels_hash: str
    perceptual_hash: int | None
    thumbnail: NDArray[np.uint8]
    oddities: tuple[Oddity, ...]


@dataclass(frozen=True)
class Fingerprints:
    """Those of all images that could be read, `rows` numbering them among the records; `unreadable` has the reasons."""

    rows: tuple[int, ...]
    prints: tuple[Fingerprint, ...]
    unreadable: dict[int, str]


def take_fingerprints(
    records: Sequence[Record],
    *,
    read: Callable[[Record], Image.Image],
    advance: Callable[[int], None] | None = None,
) -> Fingerprints:
    """Decode every image once, on several threads, and return its fingerprint or why it cannot be read.

    `advance` is called with the number of images done since its last call.
    """

    def take(record: Record) -> Fingerprint | str:
        try:
            return fingerprint(record, read=read)
        except DataError as error:
            return str(error)

    found: dict[int, Fingerprint] = {}
    unreadable: dict[int, str] = {}
    pool = ThreadPoolExecutor()  # Pillow and hashlib work without holding the interpreter
    try:
        for row, result in enumerate(pool.map(take, records)):
            if isinstance(result, str):
                unreadable[row] = result
            else:
                found[row] = result
            if advance is not None:
                advance(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return Fingerprints(tuple(found), tuple(found.values()), unreadable)


def fingerprint(record: Record, *, read: Callable[[Record], Image.Image]) -> Fingerprint:
    """Return the fingerprint of one image.

    Raises:
        DataError: the image cannot be read.
    """
    image = read(record)
    small = image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0)
    thumbnail = np.asarray(small)
    seen = picture_oddities(image.size, thumbnail)
    file_sha256, told = (None, []) if record.path is None else _look_at_file(record.path)
    kinds_told = {oddity.kind for oddity in told}
    return Fingerprint(
        file_sha256=file_sha256,
        pixels_hash=hash_pixels(image),
        perceptual_hash=None if is_constant(thumbnail) else perceptual_hash(small),
        thumbnail=thumbnail,
        oddities=(*told, *(oddity for oddity in seen if oddity.kind not in kinds_told)),
    )


def hash_pixels(image: Image.Image) -> str:
    """Return a hash of an RGB picture's size and pixels."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=32)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def perceptual_hash(image: Image.Image) -> int:
    """Return 64 bits, each the sign of one low frequency of the picture's brightness against their median."""
    bits = imagehash.phash(image).hash  # (8, 8) bool
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _look_at_file(path: Path) -> tuple[str, list[Oddity]]:
    """Return the SHA-256 of a file and what is unusual about it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}") from error
    return hashlib.sha256(content).hexdigest(), file_oddities(content, suffix=path.suffix)
