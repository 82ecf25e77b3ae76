"""What a file must be before it is decoded: told by its first bytes and its header, never by its name or type."""

import io
from typing import NamedTuple

from PIL import Image

from finevote.data.images import MIN_SIDE, open_quietly
from finevote.serving.refusals import Refusal
from finevote.serving.settings import MIB

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


class ImageKind(NamedTuple):
    """A format that is let in: what people call it, and what Pillow does."""

    name: str
    pillow: str


JPEG, PNG, WEBP, HEIC = (
    ImageKind("JPEG", "JPEG"),
    ImageKind("PNG", "PNG"),
    ImageKind("WebP", "WEBP"),
    ImageKind("HEIC", "HEIF"),
)


class ImageLimits(NamedTuple):
    """How large an image may be, and the formats that are let in."""

    max_bytes: int
    max_pixels: int
    kinds: tuple[ImageKind, ...]

    @property
    def names(self) -> str:
        """The formats in words."""
        return ", ".join(kind.name for kind in self.kinds)


def allowed_kinds() -> tuple[ImageKind, ...]:
    """Return the formats that are let in; HEIC, which phones write, where pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return JPEG, PNG, WEBP
    register_heif_opener(thumbnails=False)
    return JPEG, PNG, WEBP, HEIC


def sniff(content: bytes) -> ImageKind | None:
    """Return the format that the first bytes are of, None if it is none of those known here."""
    if content.startswith(b"\xff\xd8\xff"):
        return JPEG
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WEBP
    if content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS:
        return HEIC
    return None


def check_image(content: bytes, limits: ImageLimits) -> ImageKind:
    """Return the format of a file that may be decoded.

    Raises:
        Refusal: it is empty (400), has too many bytes or pixels (413), is of no format that is let in (415), or its
            header cannot be read (422).
    """
    if not content:
        raise Refusal(400, "the image is empty: 0 bytes", allowed=limits.names, what_to_do="send the file itself")
    if len(content) > limits.max_bytes:
        raise too_large("the image", len(content), limits.max_bytes)
    kind = sniff(content)
    if kind is None or kind not in limits.kinds:
        what = "its first bytes are of no image" if kind is None else f"it is {kind.name}"
        raise Refusal(
            415,
            f"the image is of no format that is read here: {what}",
            allowed=limits.names,
            what_to_do="save it as JPEG or PNG; its name and its declared type are not looked at",
            kind="wrong_type",
        )
    _check_size(content, kind, limits)
    return kind


def too_large(what: str, num_bytes: int, most: int) -> Refusal:
    """Return the refusal of too many bytes."""
    return Refusal(
        413,
        f"{what} has {num_bytes:,} bytes or more",
        allowed=f"up to {most:,} bytes ({most / MIB:g} MiB)",
        what_to_do="send a smaller copy: the model looks at no more than a small one",
        kind="too_large",
    )


def unreadable(reason: str) -> Refusal:
    """Return the refusal of an image that is broken."""
    return Refusal(
        422,
        f"the image cannot be read: {reason}",
        what_to_do="open it in a viewer: it may be cut short or damaged; save it anew",
        kind="unreadable",
    )


def _check_size(content: bytes, kind: ImageKind, limits: ImageLimits) -> None:
    try:
        with open_quietly(io.BytesIO(content), formats=(kind.pillow,)) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise _too_many_pixels("more than twice 178,956,970", limits) from None
    except Exception:  # noqa: BLE001  # a decoder may raise anything at all on a broken file
        raise unreadable("its header is damaged or cut short") from None
    if width * height > limits.max_pixels:
        raise _too_many_pixels(f"{width:,} x {height:,}", limits)
    if min(width, height) < MIN_SIDE:
        raise Refusal(
            422,
            f"the image has {width} x {height} pixels",
            allowed=f"at least {MIN_SIDE} a side",
            what_to_do="send the photograph itself",
            kind="unreadable",
        )


def _too_many_pixels(size: str, limits: ImageLimits) -> Refusal:
    return Refusal(
        413,
        f"the image has {size} pixels",
        allowed=f"up to {limits.max_pixels:,} pixels",
        what_to_do="send a smaller copy: the model looks at no more than a small one",
        kind="too_large",
    )
