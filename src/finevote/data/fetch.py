"""All files of a published data set, brought into its root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finevote.data.archives import Limits, is_half_unpacked, unpack
from finevote.errors import ArchiveError, DownloadError
from finevote.files import check_space, exclusive, storage_errors
from finevote.remote.download import RemoteFile, download

if TYPE_CHECKING:
    from rich.console import Console

_UNPACKED_TO_PACKED = 1.1  # photographs hardly shrink when packed; used where nobody says
_MAX_UNPACKED_TO_PACKED = 10
_MAX_UNPACKED_BYTES = 2**30  # of a small archive


def fetch(files: Sequence[RemoteFile], root: Path, *, console: Console | None = None, instructions: str = "") -> Path:
    """Bring what is missing of `files` into `root`, unpack its archives beside them, and return `root`.

    What is there already is used: an archive's content (even unpacked by hand, and without the archive), or a file
    that was brought by hand, once it is verified. Archives stay, so that a content that was removed can be made again;
    they may be removed. `instructions` is told to a person who must bring files by hand.

    Raises:
        DownloadError: files cannot be downloaded, or are other files; it says what to put where.
        ArchiveError: an archive is damaged or unsafe.
        StorageError: not everything fits on the disk, or `root` cannot be written.
    """
    with storage_errors(root):
        if not _missing(files, root, console=console):
            return root
        with exclusive(root, console=console):
            missing = _missing(files, root, console=console)  # another process may have brought them
            _check_sources(missing, root, instructions=instructions)
            check_space(root, sum(_needed_bytes(file, root) for file in missing), purpose="this data set")
            for number, file in enumerate(missing):
                path = _download(file, missing[number:], root, console=console, instructions=instructions)
                if file.unpack:
                    _unpack(file, path, root, console=console)
    return root


def describe_by_hand(files: Sequence[RemoteFile], root: Path, *, instructions: str = "") -> str:
    """Return, for a person without a connection, which files to put where, and how to know them; nothing for none."""
    if not files:
        return ""
    lines = [f"Bring {'this file' if len(files) == 1 else 'these files'} by hand and run the same command again:"]
    for file in files:
        lines.append(f"  {(root / file.name).absolute()}")
        lines += [f"    {'from' if number == 0 else '  or'} {url}" for number, url in enumerate(file.urls)]
        facts = [f"{file.num_bytes:,} bytes" if file.num_bytes is not None else ""]
        facts += [f"{kind} {digits}" for kind, digits in (("md5", file.md5), ("sha256", file.sha256)) if digits]
        if any(facts):
            lines.append(f"    with {', '.join(fact for fact in facts if fact)}")
    return "\n".join([*lines, instructions] if instructions else lines)


def _missing(files: Sequence[RemoteFile], root: Path, *, console: Console | None) -> list[RemoteFile]:
    return [file for file in files if not _is_there(file, root, console=console)]


def _is_there(file: RemoteFile, root: Path, *, console: Console | None) -> bool:
    """Say whether nothing is left to do; a plain file that is there is verified.

    Raises:
        DownloadError: it is another file.
    """
    path = root / file.name
    if file.unpack:
        return all((root / given).exists() for given in file.gives) and not is_half_unpacked(path, path.parent)
    if path.exists():
        file.verify(path, console=console)
        return True
    return False


def _absent(files: Sequence[RemoteFile], root: Path) -> list[RemoteFile]:
    return [file for file in files if not (root / file.name).exists()]


def _check_sources(missing: Sequence[RemoteFile], root: Path, *, instructions: str) -> None:
    """Ask for files that have no address before others are downloaded for hours."""
    by_hand = [file for file in _absent(missing, root) if not file.urls]
    if by_hand:
        names = ", ".join(file.name for file in by_hand)
        told = describe_by_hand(by_hand, root, instructions=instructions)
        raise DownloadError(f"{names} cannot be downloaded: there is no public address\n{told}")


def _download(
    file: RemoteFile, missing: Sequence[RemoteFile], root: Path, *, console: Console | None, instructions: str
) -> Path:
    """Download one file; if that fails, tell how to do without for it and all that would come after it."""
    try:
        return download(file, root, console=console)
    except DownloadError as error:
        absent = _absent(missing, root)
        if file not in absent:
            raise
        told = describe_by_hand(absent, root, instructions=instructions)
        raise DownloadError(f"{error}\n{told}") from None


def _unpack(file: RemoteFile, path: Path, root: Path, *, console: Console | None) -> None:
    unpack(path, path.parent, limits=_limits(file, path), console=console)
    lacking = [given for given in file.gives if not (root / given).exists()]
    if lacking:
        raise ArchiveError(f"{path} has no {', '.join(lacking)}: remove it, or bring the right one")


def _needed_bytes(file: RemoteFile, root: Path) -> int:
    """Return the space that a file will take, its content unpacked too; what nobody knows counts nothing."""
    path = root / file.name
    packed = path.stat().st_size if path.exists() else (file.num_bytes or 0)
    unpacked = file.unpacked_bytes if file.unpacked_bytes is not None else int(_UNPACKED_TO_PACKED * packed)
    return (0 if path.exists() else packed) + (unpacked if file.unpack else 0)


def _limits(file: RemoteFile, path: Path) -> Limits:
    if file.unpacked_bytes is not None:
        return Limits(max_bytes=file.unpacked_bytes)
    return Limits(max_bytes=max(_MAX_UNPACKED_BYTES, _MAX_UNPACKED_TO_PACKED * path.stat().st_size))
