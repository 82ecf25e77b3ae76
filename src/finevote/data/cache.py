"""Keeping decoded, resized images in shared memory or on disk; a cache never changes a pixel."""

import hashlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finevote.data.places import cache_folder
from finevote.errors import DataError, StorageError
from finevote.files import atomic_write
from finevote.types import Record

Decode = Callable[[Record], Tensor]

_LARGEST_SHARE = 0.7
_EASY_SHARE = 0.1  # small enough for every process of a machine to take as much
_FORMAT = "1"  # raise it when the same file would be decoded or resized otherwise


class NoCache:
    """Decode every time."""

    def get(self, index: int, record: Record, decode: Decode) -> Tensor:  # noqa: ARG002 - the caches' common call
        """Return the decoded image, uint8 (3, rows, columns)."""
        return decode(record)


class MemoryCache:
    """One shared tensor that all loader processes fill and read.

    Raises:
        DataError: it would take more than 70% of the free memory.
    """

    def __init__(self, num_images: int, *, resize: tuple[int, int]) -> None:
        needed = _bytes_of(num_images, resize)
        available = available_bytes()
        if needed > _LARGEST_SHARE * available:
            raise DataError(
                f"data.cache=memory needs {needed / 2**30:.2f} GiB for {num_images:,} images of {resize[0]}x{resize[1]}"
                f", but {available / 2**30:.2f} GiB are free and {_LARGEST_SHARE:.0%} of that is allowed: "
                "use data.cache=disk or none, or a smaller data.resize"
            )
        self.images = _shared((num_images, 3, *resize), torch.uint8)
        self.filled = _shared((num_images,), torch.bool)

    def get(self, index: int, record: Record, decode: Decode) -> Tensor:
        """Return the decoded image, uint8 (3, rows, columns); do not write to it."""
        if not self.filled[index]:
            self.images[index] = decode(record)
            self.filled[index] = True  # last, so that no other process reads a half-written image
        return self.images[index]


def fits_easily(num_images: int, *, resize: tuple[int, int]) -> bool:
    """Say whether a `MemoryCache` would take no more than a tenth of the free memory."""
    return _bytes_of(num_images, resize) <= _EASY_SHARE * available_bytes()


class DiskCache:
    """One .npy file an image, named by its path, time of change and size, or its table cell, and how it was cut.

    Images that are drawn in code are drawn every time. A damaged entry is made again.
    """

    def __init__(
        self, folder: Path | None, *, resize: tuple[int, int], interpolation: str, decoding: str = "exact"
    ) -> None:
        self.folder = folder or cache_folder("decoded")
        self.resize = resize
        self.interpolation = interpolation
        self.decoding = decoding

    def get(self, index: int, record: Record, decode: Decode) -> Tensor:  # noqa: ARG002 - the caches' common call
        """Return the decoded image, uint8 (3, rows, columns)."""
        if record.path is None and record.cell is None:
            return decode(record)
        entry = self._entry(record)
        image = self._load(entry)
        if image is None:
            image = decode(record)
            content = io.BytesIO()
            np.save(content, image.numpy(), allow_pickle=False)
            self._keep(entry, content.getvalue())
        return image

    def _keep(self, entry: Path, content: bytes) -> None:
        try:
            atomic_write(entry, content, durable=False)
        except StorageError as error:
            raise StorageError(
                f"data.cache=disk: {error} with XDG_CACHE_HOME, or train with data.cache=none"
            ) from error

    def _entry(self, record: Record) -> Path:
        content = (record.cell,) if record.path is None else _identity(record.path)
        cut = (record.banner_px,) if record.banner_px else ()
        way = () if self.decoding == "exact" else (self.decoding,)
        key = (_FORMAT, *content, *self.resize, self.interpolation, *cut, *way)
        name = hashlib.sha256(repr(key).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.npy"

    def _load(self, entry: Path) -> Tensor | None:
        try:
            pixels = np.load(entry, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if pixels.shape != (3, *self.resize) or pixels.dtype != np.uint8:
            return None
        return torch.from_numpy(pixels)


def _identity(path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"cannot read the image {path}: {error.strerror}") from error
    return str(path.absolute()), stat.st_mtime_ns, stat.st_size


def available_bytes() -> int:
    """Return the memory that can be shared now: what is free, within the container's and /dev/shm's limits."""
    shared = Path("/dev/shm")  # noqa: S108 - where Linux keeps shared memory; only its size is read
    free = free_bytes()
    return min(free, shutil.disk_usage(shared).free) if shared.exists() else free


def free_bytes() -> int:
    """Return the memory that is free now, within the container's limit."""
    free, in_container = _free_memory(), _free_in_container(Path("/sys/fs/cgroup"))
    return free if in_container is None else min(free, in_container)


def _bytes_of(num_images: int, resize: tuple[int, int]) -> int:
    return num_images * 3 * resize[0] * resize[1]


def _shared(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros in memory that loader processes share with this one."""
    tensor = torch.zeros(shape, dtype=dtype)
    tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def _free_in_container(group: Path) -> int | None:
    """Return what a control group (version 2) leaves free, file caches that give way included; None: no limit."""
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
        figures = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    if not limit.isdigit():
        return None
    return max(0, int(limit) - used + int(figures["inactive_file"]))


def _free_memory() -> int:
    """Return Linux's estimate of free memory; elsewhere the size of the memory."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
