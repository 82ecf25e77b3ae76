"""One published file, brought whole and verified into a folder.

HTTP comes from the standard library: of what the dependencies bring, the hub's client has changed under them more than
once, while `urllib` honours proxies, redirects, certificates and `file://` by itself.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finevote.errors import ArgumentError, DownloadError
from finevote.files import check_space, exclusive, storage_errors
from finevote.progress import Meter
from finevote.remote.partial import PartialFile
from finevote.remote.verification import difference, remember, verify

if TYPE_CHECKING:
    from rich.console import Console

_TIMEOUT_S = 60.0
_WAITS_S = (1.0, 3.0, 9.0)  # before each new try at an address that brought nothing new
_NEW_BYTES = 2**20  # as much as this is something new
_CHUNK_BYTES = 2**20
_MAY_PASS = {408, 416, 425, 429, 500, 502, 503, 504}  # HTTP statuses that another try may not meet
_WILL_NOT_PASS = (ssl.SSLCertVerificationError, socket.gaierror, FileNotFoundError, PermissionError, IsADirectoryError)


@dataclass(frozen=True)
class RemoteFile:
    """A published file and how to know it.

    Raises:
        ArgumentError: an archive that does not say what it gives.
    """

    name: str  # path below the data set's root
    urls: tuple[str, ...] = ()  # mirrors, tried in turn; none: brought by hand
    num_bytes: int | None = None  # exact, where known
    md5: str | None = None
    sha256: str | None = None
    unpack: bool = False  # an archive whose content belongs beside it
    gives: tuple[str, ...] = ()  # paths below the root that are there once it is unpacked
    unpacked_bytes: int | None = None  # at most, where known

    def __post_init__(self) -> None:
        if self.unpack and not self.gives:
            raise ArgumentError(f"{self.name} is to be unpacked but gives nothing: name the paths it brings")

    def verify(self, path: Path, *, console: Console | None = None) -> None:
        """Raise DownloadError unless the file at `path` is this one."""
        verify(path, num_bytes=self.num_bytes, md5=self.md5, sha256=self.sha256, console=console)


class _SourceError(Exception):
    """This address cannot give the file."""


class _PassingError(_SourceError):
    """This address could not give the file now."""


class _Offer(NamedTuple):
    """What a server is about to send: bytes from `start` on of `total` (None: it does not say) of one `version`."""

    start: int
    total: int | None
    version: str


def download(file: RemoteFile, folder: Path, *, console: Console | None = None) -> Path:
    """Bring `file` into `folder` and return its path; one that is there already is verified and used.

    The file grows as `NAME.part` and gets its name when it is whole and verified. Whatever ends the process, the next
    call goes on with the part, if the server still has the same version. Of two processes one waits for the other.

    Raises:
        DownloadError: no address gives the file (each is told with its reason), or what is there is another file.
        StorageError: the file does not fit on the disk, or the folder cannot be written.
    """
    path = folder / file.name
    if not path.exists():
        with exclusive(path.parent, console=console):
            if not path.exists():
                _download_from_any(file, path, console=console)
    file.verify(path, console=console)
    return path


def _download_from_any(file: RemoteFile, path: Path, *, console: Console | None) -> None:
    part = PartialFile.beside(path)
    reasons = []
    for url in sorted(file.urls, key=lambda url: url != part.url):  # the one that began goes on
        try:
            _download_from(url, file, part, console=console)
        except _SourceError as failure:
            reasons.append(f"  {url}: {failure}")
            continue
        with storage_errors(path):
            part.become(path)
            remember(path, part.digests.fingerprint())
        return
    listed = ":\n" + "\n".join(reasons) if reasons else ": it has no public address"
    raise DownloadError(f"cannot download {file.name}{listed}")


def _download_from(url: str, file: RemoteFile, part: PartialFile, *, console: Console | None) -> None:
    """Fill `part` from one address; an address that keeps failing without bringing anything new is given up."""
    tries, furthest = 0, 0
    while True:
        try:
            return _try_once(url, file, part, console=console)
        except _PassingError as failure:
            if part.num_bytes >= furthest + _NEW_BYTES:
                tries, furthest = 0, part.num_bytes
            if tries == len(_WAITS_S):
                raise _SourceError(f"{failure} ({tries + 1} tries)") from None
            time.sleep(_WAITS_S[tries])
            tries += 1


def _try_once(url: str, file: RemoteFile, part: PartialFile, *, console: Console | None) -> None:
    checked = file.md5 is not None or file.sha256 is not None
    start = part.resumable_bytes(url, checked=checked)
    if start:
        part.catch_up(console=console)
    if not start or start != part.total:
        with closing(_open(url, part, start=start)) as response:
            offer = _read_offer(response, start=start, expected=part.total)
            start = offer.start
            _receive(response, offer, url, file, part, console=console)
    problem = difference(part.digests.fingerprint(), num_bytes=file.num_bytes, md5=file.md5, sha256=file.sha256)
    if problem:
        part.remove()
        raise (_PassingError if start else _SourceError)(problem)  # a part of another time may be to blame


def _open(url: str, part: PartialFile, *, start: int) -> Any:
    """Return the response of a server, or a local file, from byte `start` on if that is possible."""
    request = urllib.request.Request(url, headers={"User-Agent": "finevote"})  # noqa: S310 - file:// is wanted
    if start:
        request.add_header("Range", f"bytes={start}-")
    if start and part.version:
        request.add_header("If-Range", part.version)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    try:
        return opener.open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.remove()
            kind = _PassingError if error.code in _MAY_PASS else _SourceError
            raise kind(f"HTTP {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        lasting = isinstance(reason, (str, ValueError, *_WILL_NOT_PASS))
        raise (_SourceError if lasting else _PassingError)(_in_words(reason)) from None


def _read_offer(response: Any, *, start: int, expected: int | None) -> _Offer:
    """Return what comes; a server that does not go on from `start` (of the `expected` total) sends all again."""
    tag = response.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    if response.status != http.client.PARTIAL_CONTENT:
        length = response.headers.get("Content-Length", "")
        return _Offer(0, int(length) if length.isdecimal() else None, version)
    got = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    total = int(got[2]) if got and got[2].isdecimal() else None
    if got is None or int(got[1]) != start or (expected is not None and total not in {None, expected}):
        raise _SourceError(
            f"it answers a request for the bytes from {start:,} on with {response.headers['Content-Range']}"
        )
    return _Offer(start, total, version)


def _receive(
    response: Any, offer: _Offer, url: str, file: RemoteFile, part: PartialFile, *, console: Console | None
) -> None:
    total = offer.total if offer.total is not None else file.num_bytes
    if file.num_bytes is not None and total != file.num_bytes:
        raise _SourceError(f"it has {total:,} bytes, the published file {file.num_bytes:,}")
    check_space(part.path.parent, (total or 0) - offer.start, purpose=file.name)
    if not offer.start:
        part.begin(url=url, version=offer.version, total=total)
    meter = Meter(file.name, total=total, done=offer.start, unit="bytes", console=console)
    with meter, part.writing() as write:
        for chunk in _chunks(response):
            write(chunk)
            meter.advance(len(chunk))
    if total is not None and part.num_bytes < total:
        raise _PassingError(f"the connection ended after {part.num_bytes:,} of {total:,} bytes")


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk: bytes = response.read1(_CHUNK_BYTES)  # what is there; a slow one is not waited for
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(f"the connection broke: {_in_words(error)}") from None
        if not chunk:
            return
        yield chunk


def _in_words(reason: object) -> str:
    """Return an error of the network as one line without its number."""
    words = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
    return " ".join(words.split()) or type(reason).__name__
