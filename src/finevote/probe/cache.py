"""Features on disk, found again by what they were made from: the image's content and all that looked at it."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.fingerprints import hash_pixels
from finevote.data.places import cache_folder
from finevote.errors import DataError, StorageError
from finevote.files import atomic_write, sha256_of
from finevote.types import Record

_NOT_AN_ENTRY = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)  # a zip checks its members' sums
_logger = logging.getLogger(__name__)
T = TypeVar("T")


class FeatureCache:
    """One small .npz an image in the user's cache folder, below the name of the feature space.

    A damaged entry counts as none. Where nothing can be written, a warning is given once and features are not kept.

    Args:
        space: names what features depend on besides the image.
        dim: D.
        folder: where; None: the user's cache folder.
    """

    def __init__(self, space: str, *, dim: int, folder: Path | None = None) -> None:
        self.folder = (folder or cache_folder("features")) / space
        self.dim = dim
        self._is_writable = True

    def load(self, name: str) -> NDArray[np.float32] | None:
        """Return the features (2, D) kept under a name; None if there are none that are whole."""
        try:
            with np.load(io.BytesIO(self._entry(name).read_bytes()), allow_pickle=False) as file:
                features: NDArray[np.float32] = file["features"]
        except _NOT_AN_ENTRY:
            return None
        return features if features.shape == (2, self.dim) and features.dtype == np.float32 else None

    def load_all(self, names: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Return what `load` gives for each name, read on several threads."""
        return in_threads(self.load, names)

    def save(self, name: str, features: NDArray[np.float32]) -> None:
        """Keep features (2, D) under a name."""
        if not self._is_writable:
            return
        content = io.BytesIO()
        np.savez(content, features=features)
        try:
            atomic_write(self._entry(name), content.getvalue(), durable=False)
        except StorageError as error:
            self._is_writable = False
            _logger.warning("features are not kept: %s with XDG_CACHE_HOME", error)

    def _entry(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.npz"


def name_images(
    records: Sequence[Record],
    *,
    read: Callable[[Record], Image.Image],
    advance: Callable[[int], None] | None = None,
) -> list[str]:
    """Return a name for the content of each image: equal for equal files, wherever they are and whatever their label.

    An image that is no file of its own is named by its pixels. `advance` is called with 1 after each.

    Raises:
        DataError: an image cannot be read.
    """

    def name(record: Record) -> str:
        found = _content_of(record, read)
        if advance is not None:
            advance(1)
        return hashlib.sha256(repr((*found, record.banner_px)).encode()).hexdigest()

    return in_threads(name, records)


def in_threads(function: Callable[..., T], values: Sequence[object]) -> list[T]:
    """Return `function` of each value, computed on several threads; the first error ends it."""
    pool = ThreadPoolExecutor()
    try:
        return list(pool.map(function, values))
    finally:
        pool.shutdown(cancel_futures=True)


def _content_of(record: Record, read: Callable[[Record], Image.Image]) -> tuple[str, str]:
    if record.path is None:
        return "pixels", hash_pixels(read(record))
    try:
        return "file", sha256_of(record.path)
    except OSError as error:
        raise DataError(f"cannot read the image {record.path}: {error.strerror}") from error
