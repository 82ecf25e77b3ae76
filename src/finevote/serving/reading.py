"""The body of a request, read within limits of bytes, memory and time, and the images in it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from finevote.serving.limits import too_large
from finevote.serving.refusals import Refusal, busy
from finevote.serving.settings import Settings

FIELDS = ("images", "image")
_LONGEST_NAME = 200


class Upload(NamedTuple):
    """An image as it came, and what it is called in its answer."""

    name: str
    content: bytes


class Memory:
    """The bytes that bodies may hold at once, over all requests of a process."""

    def __init__(self, num_bytes: int) -> None:
        self._num_free = num_bytes

    @contextmanager
    def held(self) -> Iterator["HeldMemory"]:
        """Yield what a request takes bytes from; they are free again when the block ends."""
        held = HeldMemory(self)
        try:
            yield held
        finally:
            self._num_free += held.num_bytes

    def take(self, num_bytes: int) -> None:
        """Take bytes; Raises Refusal if there are not so many."""
        if num_bytes > self._num_free:
            raise busy("other requests hold all the memory for photographs", retry_after_s=2, kind="memory_full")
        self._num_free -= num_bytes


class HeldMemory:
    """What one request has taken."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Take so many bytes more."""
        self._memory.take(num_bytes)
        self.num_bytes += num_bytes


async def read_body(
    chunks: AsyncIterator[bytes], headers: Mapping[str, str], *, settings: Settings, held: HeldMemory
) -> bytes:
    """Return a request's whole body.

    Raises:
        Refusal: it is compressed (415), too large, as its length says or as it comes (413), too slow (408), or memory
            is short (429).
    """
    most = settings.max_request_bytes
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refusal(415, "the body is compressed", allowed="no Content-Encoding", what_to_do="send it as it is")
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > most:
        raise too_large("the body", int(declared[:20]), most)
    body = bytearray()
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            async for chunk in chunks:
                if len(body) + len(chunk) > most:
                    raise too_large("the body", len(body) + len(chunk), most)
                held.take(len(chunk))
                body += chunk
    except TimeoutError:
        raise Refusal(
            408,
            f"the body did not arrive: {len(body):,} bytes in {settings.upload_timeout_s:g} s",
            allowed=f"{settings.upload_timeout_s:g} s for the whole body",
            what_to_do="send a smaller copy, or over a faster connection",
            kind="slow",
        ) from None
    return bytes(body)


def find_uploads(body: bytes, content_type: str, *, settings: Settings) -> list[Upload]:
    """Return the images of a body: the files of a multipart form, or the body itself.

    Raises:
        Refusal: the form is broken, has another field or no image (400), or too many images or bytes (413).
    """
    kind, options = _parse_type(content_type)
    if kind != "multipart/form-data":
        return [Upload("image", body)]
    uploads = _Form(options.get("boundary", ""), settings=settings).parse(body)
    if not uploads:
        raise _bad_form("the form has no image")
    return uploads


def clean_name(name: str, *, number: int) -> str:
    """Return a file's own name for its answer: no folders, no control characters, not long. It is never a path here."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter for letter in last if letter.isprintable())[:_LONGEST_NAME].strip()
    return shown if shown.strip(".") else f"image {number}"


def _parse_type(content_type: str) -> tuple[str, dict[str, str]]:
    message = Message()
    message["content-type"] = content_type or "application/octet-stream"
    options = message.get_params(failobj=[], header="content-type")[1:]
    return message.get_content_type(), {name.lower(): collapse_rfc2231_value(value) for name, value in options}


class _Form:
    """A multipart form taken apart in memory; nothing of it touches the disk."""

    def __init__(self, boundary: str, *, settings: Settings) -> None:
        self._boundary = boundary
        self._settings = settings
        self._uploads: list[Upload] = []
        self._headers: dict[str, str] = {}
        self._name = self._value = b""
        self._parts: list[bytes] = []
        self._is_whole = False

    def parse(self, body: bytes) -> list[Upload]:
        """Return the files of the form; Raises Refusal."""
        try:
            parser = MultipartParser(
                self._boundary.encode("latin-1", "replace"),
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_name,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_part_data": self._on_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
            parser.write(body)
            parser.finalize()
        except FormParserError as error:
            raise _bad_form(f"the multipart form is broken ({error})") from None
        if not self._is_whole:
            raise _bad_form("the multipart form is cut short: its last boundary is missing")
        return self._uploads

    def _begin(self) -> None:
        if len(self._uploads) >= self._settings.max_images:
            raise Refusal(
                413,
                f"the form has more than {self._settings.max_images} images",
                allowed=f"up to {self._settings.max_images} images in a request",
                what_to_do="send them in several requests",
                kind="too_large",
            )
        self._headers, self._parts = {}, []

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._parts.append(data[start:end])

    def _end_part(self) -> None:
        options = _parse_type(self._headers.get("content-disposition", ""))[1]
        field = options.get("name", "")
        if field not in FIELDS:
            raise _bad_form(f"the form has a field {field[:40]!r}")
        name = clean_name(options.get("filename", ""), number=len(self._uploads) + 1)
        self._uploads.append(Upload(name, b"".join(self._parts)))

    def _end(self) -> None:
        self._is_whole = True


def _bad_form(reason: str) -> Refusal:
    return Refusal(
        400,
        reason,
        allowed="multipart/form-data with one file or several in the field `images`, or one image as the body",
        what_to_do="try: curl -F images=@photo.jpg URL",
        kind="bad_form",
    )
