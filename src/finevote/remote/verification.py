"""Is a file the published one? What it is gets computed once and remembered in a stamp beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finevote.errors import DownloadError, StorageError
from finevote.files import atomic_write
from finevote.progress import Meter

if TYPE_CHECKING:
    from rich.console import Console

_CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Fingerprint:
    """What tells one file's content from another's; hashes are lower-case hexadecimal digits."""

    num_bytes: int
    md5: str
    sha256: str


class Digests:
    """The fingerprint of bytes as they come in."""

    def __init__(self) -> None:
        self.num_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self.num_bytes += len(chunk)
        self._md5.update(chunk)
        self._sha256.update(chunk)

    def read(self, path: Path, *, console: Console | None) -> None:
        """Add the content of a file; of a big one progress is shown."""
        with (
            path.open("rb") as file,
            Meter(f"verify {path.name}", total=path.stat().st_size, unit="bytes", console=console) as meter,
        ):
            while chunk := file.read(_CHUNK_BYTES):
                self.update(chunk)
                meter.advance(len(chunk))

    def fingerprint(self) -> Fingerprint:
        """Return what came in so far."""
        return Fingerprint(self.num_bytes, self._md5.hexdigest(), self._sha256.hexdigest())


def difference(got: Fingerprint, *, num_bytes: int | None, md5: str | None, sha256: str | None) -> str:
    """Return in words how a file differs from what is published of it, or nothing; None: not published."""
    if num_bytes is not None and got.num_bytes != num_bytes:
        return f"it has {got.num_bytes:,} bytes, the published file {num_bytes:,}"
    if md5 is not None and got.md5 != md5.lower():
        return f"its md5 is {got.md5}, the published file's {md5.lower()}"
    if sha256 is not None and got.sha256 != sha256.lower():
        return f"its sha256 is {got.sha256}, the published file's {sha256.lower()}"
    return ""


def verify(
    path: Path, *, num_bytes: int | None, md5: str | None, sha256: str | None, console: Console | None = None
) -> None:
    """Check a file against what is published of it; an unchanged file is read once, and its stamp afterwards.

    Raises:
        DownloadError: it is another file, or cannot be read.
    """
    try:
        size = path.stat().st_size
        if num_bytes is not None and size != num_bytes:
            problem = f"it has {size:,} bytes, the published file {num_bytes:,}"
        else:
            problem = difference(_fingerprint(path, console=console), num_bytes=num_bytes, md5=md5, sha256=sha256)
    except OSError as error:
        raise DownloadError(f"cannot read {path}: {error.strerror}: check what it is and its permissions") from None
    if problem:
        raise DownloadError(f"{path} is not the published file: {problem}: remove it, or bring the right one")


def remember(path: Path, fingerprint: Fingerprint) -> None:
    """Write the stamp of a file that was just read; where it cannot be written the file is read again next time."""
    content = {"mtime_ns": path.stat().st_mtime_ns, **asdict(fingerprint)}
    with contextlib.suppress(StorageError):
        atomic_write(_stamp(path), json.dumps(content), durable=False)


def _fingerprint(path: Path, *, console: Console | None) -> Fingerprint:
    known = _remembered(path)
    if known is None:
        digests = Digests()
        digests.read(path, console=console)
        known = digests.fingerprint()
        remember(path, known)
    return known


def _remembered(path: Path) -> Fingerprint | None:
    stat = path.stat()
    try:
        content = json.loads(_stamp(path).read_text(encoding="utf-8"))
        mtime_ns, known = content.pop("mtime_ns"), Fingerprint(**content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return known if (mtime_ns, known.num_bytes) == (stat.st_mtime_ns, stat.st_size) else None


def _stamp(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")
