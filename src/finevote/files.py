"""Writing that leaves either the whole file or the old one, one process at a time where two would meet."""

import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.filesize import decimal

from finevote.errors import FinevoteError, StorageError

_FULL_BELOW_BYTES = 2**20
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def atomic_write(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write `content` (text as UTF-8) to `path` so that a crash leaves the old file or the new one, never half.

    Missing parent folders are made. `durable=False` skips the sync to disk, for files that can be made again.

    Raises:
        StorageError: the disk is full or the place cannot be written; nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    with atomic_file(path, durable=durable) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a file to write that becomes `path` when the block ends well; else the old file stays. See `atomic_write`.

    Raises:
        StorageError: the disk is full or the place cannot be written; nothing is left behind.
    """
    temporary = _beside(path)
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder under a temporary name; when the block ends well it is synced and renamed to `path`.

    An existing folder at `path` is refused unless it is empty or `replace` is set. If the block fails, what it wrote
    is removed and what was at `path` is untouched.

    Raises:
        StorageError: the disk is full, the place cannot be written, or `path` is taken.
    """
    temporary = _beside(path)
    try:
        with storage_errors(path):
            if not replace:
                _check_free(path)
            temporary.mkdir(parents=True)
            yield temporary
            for item in temporary.rglob("*"):
                if item.is_file():
                    _sync_file(item)
            _move_into_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong in the block for want of space or permission into a StorageError about `path`."""
    try:
        yield
    except Exception as error:
        if _is_storage_problem(path, error):
            problem = _storage_error(path, error)
            raise problem from error
        raise


@contextlib.contextmanager
def exclusive(folder: Path, *, console: Console | None = None) -> Iterator[None]:
    """Let one process at a time into the block for `folder`, which is made; the others say that they wait, and wait.

    The system drops the lock with its process, however that ends, so a dead one never blocks; the lock's file stays.
    Blocks for one folder can be nested. A file system without locks lets everybody in.

    Raises:
        StorageError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.resolve() / ".finevote.lock", is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        (console or Console(stderr=True)).print(f"waiting for another process that works in {folder}", markup=False)
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _storage_error(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def check_space(folder: Path, num_bytes: int, *, purpose: str) -> None:
    """Raise StorageError unless `num_bytes` more fit on the disk of `folder`, which need not exist yet."""
    free = _free_bytes(folder / "file")
    if num_bytes > free:
        raise StorageError(
            f"{purpose} needs {decimal(num_bytes)}, but {folder} has {decimal(free)} free: "
            "free some space or choose another place"
        )


def remove_temporaries(folder: Path, *, of: str | None = None) -> None:
    """Remove what writers that were killed left in `folder` under temporary names; none may be at work there.

    `of` is the file or folder that they wrote; None for all.
    """
    name = r".+" if of is None else re.escape(of[:100])
    for path in folder.glob(".*.tmp"):
        if not re.fullmatch(rf"\.{name}\.[0-9a-f]{{32}}\.tmp", path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def is_temporary(name: str) -> bool:
    """Tell whether a file is called as those are that become another when they are whole."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", name) is not None


def sync_folder(path: Path) -> None:
    """Make a rename in `path` last; systems that cannot sync a folder are left to their own order of writing."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _beside(path: Path) -> Path:
    """Return a hidden, unused name in the folder of `path`, so that the rename stays on one file system."""
    return path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}.tmp")


def _check_free(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise StorageError(f"{path} already exists: choose another name or remove it first")


def _move_into_place(temporary: Path, path: Path) -> None:
    old = _beside(path)
    if path.exists():
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    sync_folder(path.parent)
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _is_storage_problem(path: Path, error: Exception) -> bool:
    """Say so of an OSError; writers of other libraries have names of their own for it, so the disk itself is asked."""
    if isinstance(error, FinevoteError):
        return False
    return isinstance(error, OSError) or _is_full(path, error)


def _is_full(path: Path, error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOSPC
    return "No space left" in str(error) or _free_bytes(path) < _FULL_BELOW_BYTES


def _storage_error(path: Path, error: Exception) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if not _is_full(path, error):
        return StorageError(f"cannot write {path}: {reason}: choose another place")
    return StorageError(
        f"cannot write {path}: {reason} (the disk is full, {_free_bytes(path) / 2**20:,.1f} MiB free there): "
        "free some space or choose another place"
    )


def _free_bytes(path: Path) -> int:
    """Return the free space, in bytes, of the disk that holds the nearest existing parent of `path`."""
    folder = next((parent for parent in path.absolute().parents if parent.exists()), Path("/"))
    return shutil.disk_usage(folder).free
