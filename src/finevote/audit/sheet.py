"""The findings as a picture to look through: copies side by side, doubtful labels, odd images."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from PIL import Image

from finevote.audit.findings import DUPLICATES, KINDS, MIXED_LABELS, Audit, Finding, ImageRef
from finevote.errors import DataError
from finevote.explanation.panels import Panel, Section, panel_sheet
from finevote.types import DataSource, Record

NUM_DRAWN = 8  # findings of a kind
_LARGEST_PX = 480


def draw_findings(audit: Audit, source: DataSource) -> Figure | None:
    """Return a page with up to eight findings of each kind that has pictures; None if there are none.

    Of copies, those come first that lie in different splits or have different labels; of the rest, the surest. Beside
    an image whose label is in doubt stands another one of the class that it looks like.
    """
    album = _Album(audit, source)
    sections = [_section(kind, audit.of_kind(kind), album) for kind in KINDS]
    drawn = [section for section in sections if section.panels]
    if not drawn:
        return None
    counts = ", ".join(f"{number:,} {split}" for split, number in audit.num_images.items())
    return panel_sheet(drawn, title=f"Audit of {audit.data}", subtitle=f"{counts} images; every split was opened")


class _Album:
    """The pictures of a data set by image id, and a typical image of each class."""

    def __init__(self, audit: Audit, source: DataSource) -> None:
        self.source = source
        self.records: dict[str, Record] = {}
        self.typical: dict[str, ImageRef] = {}
        doubted = {image.id for finding in audit.of_kind("label_error") for image in finding.images}
        for split, records in source.splits.items():
            for record in records:
                self.records[record.image_id] = record
                name = source.class_names[record.label]
                if record.image_id not in doubted:
                    self.typical.setdefault(name, ImageRef(record.image_id, split, name))

    def picture(self, image: ImageRef) -> Image.Image | None:
        """Return the picture, small; None if it cannot be read."""
        try:
            picture = self.source.read(self.records[image.id])
        except DataError:
            return None
        picture.thumbnail((_LARGEST_PX, _LARGEST_PX), Image.Resampling.LANCZOS)
        return picture


def _section(kind: str, found: Sequence[Finding], album: _Album) -> Section:
    ranked = sorted(found, key=_rank) if kind in DUPLICATES else found
    panels: list[Panel] = []
    for finding in ranked:
        panel = _panel(finding, album) if len(panels) < NUM_DRAWN else None
        if panel is not None:
            panels.append(panel)
    shown = f"{len(panels)} of {len(found):,}" if len(panels) < len(found) else f"{len(found):,}"
    title = KINDS[kind]
    return Section(title[0].upper() + title[1:], shown, tuple(panels))


def _rank(finding: Finding) -> tuple[int, float]:
    return -len(finding.tags), -(finding.score or 0.0)


def _panel(finding: Finding, album: _Album) -> Panel | None:
    """Return one or two images of a finding, with what is found; None if none of them can be read."""
    images = _to_show(finding, album)
    pictures = [(image, picture) for image in images if (picture := album.picture(image)) is not None]
    if not pictures:
        return None
    num_more = len(finding.images) - len(images)
    remarks = (
        finding.detail,
        "two labels" if MIXED_LABELS in finding.tags else "",
        f"and {num_more} more" if num_more > 0 else "",
    )
    names = tuple(f"{image.id}  {image.split}: {image.class_name.replace('_', ' ')}" for image, _ in pictures)
    return Panel(tuple(picture for _, picture in pictures), names, "; ".join(filter(None, remarks)))


def _to_show(finding: Finding, album: _Album) -> list[ImageRef]:
    """Return the first image and, if there is one, the first of another split or label, or else the second."""
    first, others = finding.images[:1], finding.images[1:]
    if finding.kind == "label_error":
        others = tuple(album.typical[name] for name in finding.classes if name in album.typical)
    differing = [other for other in others if (other.split, other.class_name) != (first[0].split, first[0].class_name)]
    return [*first, *(differing or others)[:1]]
