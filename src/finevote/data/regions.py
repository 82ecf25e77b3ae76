"""Boxes of subjects and their parts, from pixels in the files of a data set to fractions of the image as it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from finevote.data.images import read_header
from finevote.errors import DataError
from finevote.types import Box, Record, Regions

POINT_SIDE = 0.1  # of the longer side of the subject's box, or of the image where no box is known
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class PixelBox(NamedTuple):
    """A rectangle in pixels of the image as it is stored."""

    left: float
    top: float
    right: float
    bottom: float


class Annotation(NamedTuple):
    """What a data set says of an image, in pixels of the image as it is stored.

    `points` are the visible parts (name, x, y), `boxes` parts with a box. `size` (width, height) is what the pixels
    refer to where that may differ from the image.
    """

    subject: PixelBox | None = None
    points: tuple[tuple[str, float, float], ...] = ()
    boxes: tuple[tuple[str, PixelBox], ...] = ()
    size: tuple[float, float] | None = None


@dataclass(frozen=True)
class TableFinder:
    """Locates boxes by tables for all images, which `read` gives by image id; they are read on first use."""

    read: Callable[[], Mapping[str, Annotation]]
    subject: str

    def __call__(self, record: Record) -> Regions:
        """Return the regions of an image. Raises DataError for broken tables or an unreadable image."""
        annotation = self._table.get(record.image_id)
        return Regions() if annotation is None else to_regions(record, annotation, subject=self.subject)

    @cached_property
    def _table(self) -> Mapping[str, Annotation]:
        return self.read()

    def __getstate__(self) -> dict[str, Any]:
        return {"read": self.read, "subject": self.subject}


@dataclass(frozen=True)
class VocFinder:
    """Locates boxes by a Pascal VOC file for each image, which `find` gives.

    The box is the `subject`'s, the largest one where there are several; or, without `subject`, those of the `part`.
    """

    find: Callable[[Record], Path]
    subject: str | None = None
    part: str | None = None

    def __call__(self, record: Record) -> Regions:
        """Return the regions of an image, none if it has no file. Raises DataError for a broken file."""
        path = self.find(record)
        if not path.is_file():
            return Regions()
        boxes, size = _read_voc(path)
        if self.subject is None:
            annotation = Annotation(boxes=tuple((str(self.part), box) for box in boxes), size=size)
        else:
            annotation = Annotation(subject=max(boxes, key=_area, default=None), size=size)
        return to_regions(record, annotation, subject=self.subject or "")


def to_regions(record: Record, annotation: Annotation, *, subject: str) -> Regions:
    """Return boxes as fractions of the image as it is read: turned upright, its banner cut off.

    A point becomes a square around it, `POINT_SIDE` of the longer side of the subject's box. What lies outside of the
    image is cut off.

    Raises:
        DataError: the image cannot be read.
    """
    if record.path is None:
        return Regions()
    width, height, orientation = read_header(record.path)
    box_width, box_height = annotation.size or (width, height)
    kept = 1 - record.banner_px / (height if orientation < 5 else width)

    def place(name: str, pixels: PixelBox) -> Box | None:
        sides = (pixels.left / box_width, pixels.top / box_height, pixels.right / box_width, pixels.bottom / box_height)
        left, top, right, bottom = turn_box(sides, orientation)
        clipped = (_clip(left), _clip(top / kept), _clip(right), _clip(bottom / kept))
        return Box(name, *clipped) if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None

    whole = annotation.subject or PixelBox(0, 0, box_width, box_height)
    half = POINT_SIDE * max(whole.right - whole.left, whole.bottom - whole.top) / 2
    points = ((name, PixelBox(x - half, y - half, x + half, y + half)) for name, x, y in annotation.points)
    parts = (place(name, pixels) for name, pixels in (*annotation.boxes, *points))
    return Regions(
        subject=place(subject, annotation.subject) if annotation.subject else None,
        parts=tuple(part for part in parts if part is not None),
    )


def turn_box(sides: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom, in fractions, of a box once its image is turned upright by its EXIF orientation.

    Orientations 2 to 4 mirror or turn by half a turn, 5 to 8 swap rows and columns besides.
    """
    left, top, right, bottom = sides
    if orientation in {5, 6, 7, 8}:
        left, top, right, bottom = top, left, bottom, right
    if orientation in {2, 3, 6, 7}:
        left, right = 1 - right, 1 - left
    if orientation in {3, 4, 7, 8}:
        top, bottom = 1 - bottom, 1 - top
    return left, top, right, bottom


def _read_voc(path: Path) -> tuple[list[PixelBox], tuple[float, float] | None]:
    """Return the boxes of all objects, and the size that they refer to where the file gives one."""
    try:
        root = ET.parse(path).getroot()  # noqa: S314 - expat itself bounds what entities may expand to
        boxes = [PixelBox(*(float(box.findtext(side, "")) for side in _SIDES)) for box in root.iter("bndbox")]
        width, height = (float(root.findtext(f"size/{name}", "0")) for name in ("width", "height"))
    except (OSError, ET.ParseError, ValueError) as error:
        raise DataError(f"cannot read the boxes in {path}: {error}: unpack the annotations again") from error
    return boxes, (width, height) if width > 0 and height > 0 else None


def _area(box: PixelBox) -> float:
    return (box.right - box.left) * (box.bottom - box.top)


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)
