"""Archives of image folders: unpacked once into the user's cache, then opened there like any folder."""

import hashlib
from pathlib import Path

from finevote.data.archives import unpack
from finevote.data.items import list_folder
from finevote.data.places import cache_folder
from finevote.errors import ArchiveError, DataError, StorageError

_LEFT_BY_MACS = "__MACOSX"
_SAMPLED_BYTES = 2**20


def unpacked_folder(archive: Path) -> Path:
    """Return the folder with an archive's content, unpacking it if that has not been done.

    An archive that has changed is unpacked anew, beside the old one.

    Raises:
        DataError: the archive cannot be read, is damaged or unsafe.
        StorageError: it does not fit on the disk.
    """
    folder = cache_folder("unpacked") / _identity(archive) / archive.name.partition(".")[0]
    if not folder.is_dir():
        try:
            unpack(archive, folder)
        except ArchiveError as error:
            raise DataError(str(error)) from None
        except StorageError as error:
            raise StorageError(f"{error} with XDG_CACHE_HOME") from error
    return folder


def content_root(folder: Path) -> Path:
    """Return the innermost folder that is not just wrapped around a single one; a lone folder of images is not entered.

    Raises:
        DataError: a folder cannot be listed.
    """
    while True:
        inner = [Path(entry.path) for entry in list_folder(folder) if entry.is_dir() and entry.name != _LEFT_BY_MACS]
        if len(inner) != 1 or not any(entry.is_dir() for entry in list_folder(inner[0])):
            return folder
        folder = inner[0]


def _identity(archive: Path) -> str:
    """Return a text that changes with an archive: from size, time, and the first and last MiB.

    In a zip the end lists the checksums of all members, in a tar.gz it is the checksum of the whole; to read all of a
    large archive whenever it is opened would take longer than to train on it for a while.
    """
    try:
        stat = archive.stat()
        with archive.open("rb") as file:
            start = file.read(_SAMPLED_BYTES)
            file.seek(max(0, stat.st_size - _SAMPLED_BYTES))
            end = file.read()
    except OSError as error:
        raise DataError(f"cannot read {archive}: {error.strerror}") from None
    digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns} ".encode() + start + end)
    return digest.hexdigest()[:16]
