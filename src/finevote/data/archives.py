"""Unpacking zip and tar archives: safely, resumably and never half."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finevote.data.archive_members import Member, Names, is_archive, read_members
from finevote.errors import ArchiveError
from finevote.files import atomic_write, check_space, exclusive, storage_errors, sync_folder
from finevote.progress import Meter

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Limits", "is_archive", "is_half_unpacked", "unpack"]

_NEVER_A_BOMB_BYTES = 2**26


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to; beyond any of these it is refused as a bomb.

    `max_ratio` is of unpacked to packed bytes; photographs hardly shrink when packed. What unpacks to less than 64 MiB
    may have any ratio.
    """

    max_bytes: int = 2**39
    max_members: int = 5_000_000
    max_ratio: float = 100.0


def unpack(archive: Path, folder: Path, *, limits: Limits | None = None, console: Console | None = None) -> None:
    """Unpack a zip or tar into `folder`: it appears whole if it is not there, else what it gets is merged into it.

    The members grow in a hidden folder and are moved when all of them are there and synced. Whatever ends the process,
    the next call skips what is done. Of two processes that make one folder the second waits and uses it. Files get
    the usual permissions and the time of unpacking, whatever the archive says; files of the same name are replaced.

    Raises:
        ArchiveError: it is damaged, no archive, unsafe, or more than `limits` allow: nothing of it is kept.
        StorageError: it does not fit on the disk, or the folder cannot be written.
    """
    if not archive.is_file():
        raise ArchiveError(f"{archive} is not there, or is no file: check its name")
    is_new = not folder.exists()
    place = folder.parent if is_new else folder
    with storage_errors(folder), exclusive(place, console=console):
        if is_new and folder.exists():
            return
        staging = _Staging(archive, place)
        try:
            staging.prepare()
            _unpack_members(archive, staging, limits=limits or Limits(), console=console)
            _move_all(staging.content, folder)
        except ArchiveError as error:
            staging.remove()
            raise ArchiveError(f"{archive} is not unpacked: {error}") from None
        sync_folder(place)
        staging.remove()


def is_half_unpacked(archive: Path, folder: Path) -> bool:
    """Say whether unpacking `archive` into the existing `folder` was begun and not ended."""
    return _Staging(archive, folder).path.exists()


class _Staging:
    """The hidden folder in `place` where an archive grows: `content`, and whether that is complete."""

    def __init__(self, archive: Path, place: Path) -> None:
        self._archive = archive
        self.path = place / f".{archive.name[:200]}.unpacking"
        self.content = self.path / "content"
        self.is_resumed = False
        self.complete = self.path / "complete"
        self._identity_file = self.path / "archive.json"

    def prepare(self) -> None:
        """Keep what is there of the same archive; else begin anew."""
        stat = self._archive.stat()
        identity = json.dumps([stat.st_size, stat.st_mtime_ns])
        self.is_resumed = self.content.is_dir() and self._identity() == identity
        if self.is_resumed:
            return
        self.remove()
        check_space(self.path.parent, stat.st_size, purpose=f"unpacking {self._archive.name}")
        self.content.mkdir(parents=True)
        atomic_write(self._identity_file, identity, durable=False)

    def remove(self) -> None:
        """Remove it all; the word that it is complete goes first, so that half of it never counts as whole."""
        self.complete.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def _identity(self) -> str:
        return self._identity_file.read_text(encoding="utf-8") if self._identity_file.is_file() else ""


def _unpack_members(archive: Path, staging: _Staging, *, limits: Limits, console: Console | None) -> None:
    if staging.complete.exists():
        return
    num_packed = archive.stat().st_size
    max_stream_bytes = max(_NEVER_A_BOMB_BYTES, int(limits.max_ratio * num_packed))
    left = min(limits.max_bytes, max_stream_bytes)
    names, folders = Names(), {staging.content}
    meter = Meter(f"unpack {archive.name}", total=num_packed, unit="bytes", console=console)
    with closing(read_members(archive, max_stream_bytes=max_stream_bytes)) as members, meter:
        for number, member in enumerate(members, start=1):
            if number > limits.max_members:
                raise ArchiveError(f"it has more than {limits.max_members:,} members, so it may be a bomb")
            is_first = names.claim(member.name, is_folder=member.is_folder)
            target = staging.content / member.name
            folder = target if member.is_folder else target.parent
            if folder not in folders:
                folder.mkdir(parents=True, exist_ok=True)
                folders.add(folder)
            if not member.is_folder:
                left -= _unpack_file(member, target, max_bytes=left, may_be_done=staging.is_resumed and is_first)
            meter.advance(max(0, member.position - meter.done))
    if hasattr(os, "sync"):  # one call, since a call for each of many small files takes longer than unpacking them
        os.sync()
    staging.complete.touch()


def _unpack_file(member: Member, target: Path, *, max_bytes: int, may_be_done: bool) -> int:
    """Write one file, unless an earlier call wrote all of it, and return its size."""
    if may_be_done and target.is_file() and target.stat().st_size == member.num_bytes <= max_bytes:
        return member.num_bytes
    num_bytes = 0
    with target.open("wb") as file:
        for chunk in member.chunks():
            num_bytes += len(chunk)
            if num_bytes > max_bytes:
                raise ArchiveError("it holds more bytes than are allowed for it, so it may be a bomb")
            file.write(chunk)
    if num_bytes != member.num_bytes:
        raise ArchiveError(f"it is damaged: {member.name!r} ends after {num_bytes:,} of {member.num_bytes:,} bytes")
    return num_bytes


def _move_all(content: Path, folder: Path) -> None:
    if not folder.exists():
        content.rename(folder)
        return
    for item, there in list(_moves(content, folder)):
        item.replace(there)


def _moves(content: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield what is to be moved and where; folders that are on both sides are entered."""
    for item in content.iterdir():
        there = folder / item.name
        if there.is_symlink() or (there.exists() and there.is_dir() != item.is_dir()):
            raise ArchiveError(f"{there} is in its way: remove that, or unpack elsewhere")
        if there.exists() and item.is_dir():
            yield from _moves(item, there)
        else:
            yield item, there
