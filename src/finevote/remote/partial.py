"""What has come of a file so far: `NAME.part`, and beside it which version of which address it belongs to."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from finevote.files import atomic_write, storage_errors, sync_folder
from finevote.remote.verification import Digests

if TYPE_CHECKING:
    from rich.console import Console


class PartialFile:
    """The part of one file; `digests` belong to its bytes, or to none yet if it was left by another process.

    `url` is where it comes from, `version` the server's word for its content (empty: none), `total` the size of the
    whole file (None: the server did not say).
    """

    def __init__(self, path: Path, origin: Path) -> None:
        self.path = path
        self.digests = Digests()
        self._origin = origin
        self.url, self.version, self.total = _read_origin(origin)

    @classmethod
    def beside(cls, path: Path) -> Self:
        """Return the part of the file that is to be at `path`; nothing is written yet."""
        return cls(path.with_name(f"{path.name}.part"), path.with_name(f".{path.name}.origin"))

    @property
    def num_bytes(self) -> int:
        """How much is on the disk."""
        return self.path.stat().st_size if self.path.exists() else 0

    def resumable_bytes(self, url: str, *, checked: bool) -> int:
        """Return from which byte `url` can go on; 0: from the start.

        Bytes of two versions are never joined: the server must have named the version, or the whole is `checked`
        against a hash in the end.
        """
        known = url == self.url and (checked or bool(self.version))
        return self.num_bytes if known and (self.total is None or self.num_bytes <= self.total) else 0

    def catch_up(self, *, console: Console | None) -> None:
        """Take up the bytes that another process left, or that an earlier try did not take up."""
        if self.digests.num_bytes != self.num_bytes:
            self.digests = Digests()
            self.digests.read(self.path, console=console)

    def begin(self, *, url: str, version: str, total: int | None) -> None:
        """Forget what has come, and note what comes now."""
        self.remove()
        self.url, self.version, self.total = url, version, total
        atomic_write(self._origin, json.dumps([url, version, total]))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that adds bytes; they are on the disk when the block ends, however it ends."""
        with self.path.open("ab") as file:

            def write(chunk: bytes) -> None:
                with storage_errors(self.path):
                    file.write(chunk)
                self.digests.update(chunk)

            try:
                yield write
            finally:
                with storage_errors(self.path):
                    file.flush()
                    os.fsync(file.fileno())

    def become(self, path: Path) -> None:
        """Take the whole file's name."""
        self.path.replace(path)
        self._origin.unlink(missing_ok=True)
        sync_folder(path.parent)

    def remove(self) -> None:
        """Remove what has come."""
        self.path.unlink(missing_ok=True)
        self._origin.unlink(missing_ok=True)
        self.digests = Digests()
        self.url, self.version, self.total = "", "", None


def _read_origin(origin: Path) -> tuple[str, str, int | None]:
    try:
        url, version, total = json.loads(origin.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return "", "", None
    return str(url), str(version), total if isinstance(total, int) else None
