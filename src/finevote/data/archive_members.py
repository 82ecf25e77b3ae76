"""What is in a zip or tar archive, one member after another, each refused unless it is a plain file or folder.

Nothing here trusts a header: names are checked as they will be written, sizes are limits on what is read.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from finevote.errors import ArchiveError

_CHUNK_BYTES = 2**20  # also the most that the headers of one member may take
_MAX_NAME_BYTES = 255  # of a file or folder, as common file systems have it
_MAX_PATH_BYTES = 1024
_MAX_DEPTH = 64

_COMPRESSIONS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
_TAR_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
    tarfile.REGTYPE: "a sparse file",
}
_UNIX_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,  # of zipfile, for want of a password; RecursionError, of tarfile
    ValueError,
)


class Member(NamedTuple):
    """A file or folder: `name` is below the archive's root, with slashes, and safe to write.

    `num_bytes` is what its header says; `position` how much of the archive was read before it. `chunks` reads it, and
    is to be used before the next member is asked for.
    """

    name: str
    is_folder: bool
    num_bytes: int
    position: int
    chunks: Callable[[], Iterator[bytes]]


def is_archive(path: Path) -> bool:
    """Say by its content, whatever its name, whether a file is a zip or a plain or compressed tar."""
    if not path.is_file():
        return False
    start = _first_bytes(path)
    return start.startswith(_ZIP_STARTS) or _tar_opener(path, start) is not None


def read_members(archive: Path, *, max_stream_bytes: int) -> Generator[Member, None, None]:
    """Yield the members in the order of the archive; it is closed with the iterator.

    Raises:
        ArchiveError: it is no archive, is damaged, or would decompress to more than `max_stream_bytes`; or a member is
            no plain file or folder or has a name that is not safe.
    """
    start = _first_bytes(archive)
    if start.startswith(_ZIP_STARTS):
        return _read_zip(archive, max_stream_bytes=max_stream_bytes)
    opener = _tar_opener(archive, start)
    if opener is None:
        raise ArchiveError("it is no zip, tar, tar.gz, tar.bz2 or tar.xz, whatever its name, or is damaged")
    return _read_tar(archive, opener, max_stream_bytes=max_stream_bytes)


def safe_name(name: str) -> str:
    """Return a member's name with single slashes and no dots; empty: the archive's root itself.

    Raises:
        ArchiveError: it leads outside, is not UTF-8, is too long, or means something else on another system.
    """
    shown = repr(name if len(name) <= 100 else name[:100] + "...")
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise ArchiveError(f"the name {name[:100]!a} is not UTF-8: pack it again with UTF-8 names")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts or any(re.match("[A-Za-z]:", part) for part in parts):
        raise ArchiveError(f"the name {shown} leads outside the folder")
    if "\\" in name or any(unicodedata.category(letter) == "Cc" for letter in name):
        raise ArchiveError(f"the name {shown} has a backslash or control character")
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise ArchiveError(f"the name {shown} is too long: at most {_MAX_NAME_BYTES} bytes each file or folder")
    if len(name.encode()) > _MAX_PATH_BYTES or len(parts) > _MAX_DEPTH:
        raise ArchiveError(f"the name {shown} is too long: at most {_MAX_PATH_BYTES} bytes and {_MAX_DEPTH} folders")
    return "/".join(parts)


class Names:
    """The names of an archive so far, told apart as on a system that ignores case and Unicode form."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._claimed_folders: set[str] = {""}

    def claim(self, name: str, *, is_folder: bool) -> bool:
        """Take a name and those of its folders; False if this file came before (then the later one counts, as in tar).

        Raises:
            ArchiveError: it is no name, would be one with another name, or is both a file and a folder.
        """
        self._claim_folder(name if is_folder else name.rpartition("/")[0])
        if is_folder:
            return True
        if not name:
            raise ArchiveError("a file in it has no name")
        key = _comparable(name)
        if key in self._folders:
            raise ArchiveError(f"{name!r} is both a file and a folder")
        is_first = key not in self._files
        _check_same(self._files.setdefault(key, name), name)
        return is_first

    def _claim_folder(self, folder: str) -> None:
        if folder in self._claimed_folders:
            return
        self._claim_folder(folder.rpartition("/")[0])
        key = _comparable(folder)
        if key in self._files:
            raise ArchiveError(f"{folder!r} is both a file and a folder")
        _check_same(self._folders.setdefault(key, folder), folder)
        self._claimed_folders.add(folder)


def _comparable(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _check_same(first: str, name: str) -> None:
    if first != name:
        raise ArchiveError(
            f"{first!r} and {name!r} would be one file where names ignore case or Unicode form: rename one"
        )


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise ArchiveError(f"it cannot be read: {error.strerror}") from None


def _tar_opener(path: Path, start: bytes) -> Callable[[IO[bytes]], Any] | None:
    """Return what opens the tar's own bytes; None if there is no tar inside."""
    opener = next((opener for magic, opener in _COMPRESSIONS.items() if start.startswith(magic)), _as_it_is)
    try:
        with path.open("rb") as raw, opener(raw) as stream:
            tarfile.TarInfo.frombuf(stream.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except _BROKEN:
        return None
    return opener


def _as_it_is(raw: IO[bytes]) -> IO[bytes]:
    return raw


def _read_tar(
    archive: Path, opener: Callable[[IO[bytes]], Any], *, max_stream_bytes: int
) -> Generator[Member, None, None]:
    with archive.open("rb") as raw, opener(raw) as stream:
        reader = _ForwardReader(stream, max_bytes=max_stream_bytes)
        with _damage_refused():
            tar = tarfile.TarFile(fileobj=reader, encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
        while (member := _next_member(tar)) is not None:
            name = safe_name(member.name)
            _check_tar_kind(member)
            num_bytes = 0 if member.isdir() else member.size
            yield Member(name, member.isdir(), num_bytes, raw.tell(), partial(reader.chunks, num_bytes))
        if not reader.last_block or reader.last_block.strip(b"\0"):
            raise ArchiveError("it is damaged: it ends in the middle, or a header is not readable")
        with _damage_refused():
            while reader.read(_CHUNK_BYTES):  # the checksum of a compressed one stands behind its last byte
                pass


def _next_member(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    with _damage_refused():
        member = tar.next()
    tar.members.clear()  # type: ignore[attr-defined] # else millions of them are kept
    return member


def _check_tar_kind(member: tarfile.TarInfo) -> None:
    is_plain = member.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not member.issparse()
    if not is_plain and not member.isdir():
        raise ArchiveError(f"{member.name!r} is {_TAR_KINDS.get(member.type, 'of an unknown kind')}")
    if member.size < 0:
        raise ArchiveError(f"{member.name!r} has a size below zero")


class _ForwardReader:
    """The bytes of a tar for `tarfile`: forwards only, `max_bytes` in all and no big header, whatever a header says."""

    def __init__(self, stream: IO[bytes], *, max_bytes: int) -> None:
        self._stream = stream
        self._max_bytes = max_bytes
        self.last_block = b""

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK_BYTES:
            raise ArchiveError(f"a header is bigger than {_CHUNK_BYTES:,} bytes")
        self._check(self.tell() + size)
        self.last_block = self._stream.read(size)
        return self.last_block

    def seek(self, position: int) -> None:
        if position < self.tell():
            raise ArchiveError("it is damaged: a header points backwards")
        self._check(position)
        self._stream.seek(position)

    def chunks(self, num_bytes: int) -> Iterator[bytes]:
        """Yield the next `num_bytes`, or what there is of them."""
        while num_bytes:
            with _damage_refused():
                chunk = self.read(min(num_bytes, _CHUNK_BYTES))
            if not chunk:
                return
            num_bytes -= len(chunk)
            yield chunk

    def _check(self, position: int) -> None:
        if position > self._max_bytes + _CHUNK_BYTES:
            raise ArchiveError(f"it would decompress to more than {self._max_bytes:,} bytes, so it may be a bomb")


def _read_zip(archive: Path, *, max_stream_bytes: int) -> Generator[Member, None, None]:
    with _damage_refused():
        file = zipfile.ZipFile(archive)
    with file:
        if sum(info.file_size for info in file.infolist()) > max_stream_bytes:
            raise ArchiveError(f"it would decompress to more than {max_stream_bytes:,} bytes, so it may be a bomb")
        position = 0
        for info in file.infolist():
            name = safe_name(_zip_name(info))
            _check_zip_kind(info)
            yield Member(name, info.is_dir(), info.file_size, position, partial(_read_zip_member, file, info))
            position += info.compress_size


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name as it was packed: marked as UTF-8, or not marked but UTF-8 all the same, as some systems do."""
    if info.flag_bits & 0x800:
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode()
    except UnicodeDecodeError:
        raise ArchiveError(f"the name {info.orig_filename!a} is not UTF-8: pack it again with UTF-8 names") from None


def _check_zip_kind(info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise ArchiveError(f"{info.filename!r} is {_UNIX_KINDS.get(kind, 'of an unknown kind')}")
    if info.flag_bits & 0x1:
        raise ArchiveError(f"{info.filename!r} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArchiveError(f"{info.filename!r} is compressed by another method than deflate: pack it again")


def _read_zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with _damage_refused():
        stream = file.open(info)
    with stream:
        while True:
            with _damage_refused():
                chunk = stream.read(_CHUNK_BYTES)
            if not chunk:
                return
            yield chunk


@contextlib.contextmanager
def _damage_refused() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise ArchiveError(f"it is damaged: {' '.join(str(error).split()) or type(error).__name__}") from None
