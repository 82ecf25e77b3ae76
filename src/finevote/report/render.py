"""A page of blocks as one HTML file: nothing outside of it is ever asked for, and it stays small enough to mail."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from finevote.errors import StorageError
from finevote.explanation.telling import percent
from finevote.files import atomic_write
from finevote.report.blocks import Page, Photo
from finevote.report.photographs import data_uri

MAX_BYTES = 8_000_000
_TEMPLATES = Path(__file__).parent / "templates"


class Level(NamedTuple):
    """How photographs are put in: their longer side, the quality of the JPEG, and the share of them that is kept."""

    side_px: int
    quality: int
    share: float


LEVELS = (Level(280, 80, 1.0), Level(240, 72, 1.0), Level(200, 65, 1.0), Level(160, 60, 0.5), Level(0, 0, 0.0))


class Rendered(NamedTuple):
    """The file's text, how many bytes it has, and with what photographs it came below the limit."""

    html: str
    num_bytes: int
    level: Level


class Written(NamedTuple):
    """Where a page was written, and its size."""

    path: Path
    num_bytes: int


def write_page(page: Page, path: Path) -> Written:
    """Write a page as one HTML file; Raises as `render` does, and StorageError where it cannot be written."""
    rendered = render(page)
    atomic_write(path, rendered.html)
    return Written(path, rendered.num_bytes)


def describe_making() -> str:
    """Return when and with what a page was made."""
    return f"Made on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by finevote {version('finevote')}."


def render(page: Page, *, max_bytes: int = MAX_BYTES) -> Rendered:
    """Return the page as HTML of at most `max_bytes`: photographs get smaller, then fewer, until it fits.

    Raises:
        StorageError: it does not fit without any photograph.
    """
    for level in LEVELS:
        html = _fill(page, level)
        num_bytes = len(html.encode())
        if num_bytes <= max_bytes:
            return Rendered(html, num_bytes, level)
    raise StorageError(
        f"the report has {num_bytes:,} bytes without any photograph, more than the {max_bytes:,} that it may have"
    )


def _fill(page: Page, level: Level) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        page=page,
        style=Markup(style),  # noqa: S704  # both are files of this package
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        uri=_encoder(level),
        percent=percent,
        kept=lambda photos: keep(photos, level.share),
    )


def keep(photos: Sequence[Photo], share: float) -> Sequence[Photo]:
    """Return the first photographs, so many that it is this share of them, rounded up."""
    return photos[: -int(-len(photos) * share // 1)]


def _encoder(level: Level) -> Callable[[Photo], str]:
    """Return a function that gives a photograph as a data URI, each encoded once."""
    made: dict[int, str] = {}

    def encode(photo: Photo) -> str:
        key = id(photo.image)
        if key not in made:
            made[key] = data_uri(photo.image, side_px=level.side_px, quality=level.quality)
        return made[key]

    return encode
