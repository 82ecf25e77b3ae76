"""What a page is made of: sections of blocks, as plain values. The template knows how each kind looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from markupsafe import Markup
from PIL import Image

RIGHT, WRONG = "right", "wrong"


class Bar(NamedTuple):
    """Where an interval and its figure lie on the scale of their column, each from 0 to 1."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """A cell: its text, the number that it is sorted by (its text where that is None), and what is drawn or said.

    `bar` is an interval to draw, `note` stands below the text in small.
    """

    text: str
    sort: float | None = None
    bar: Bar | None = None
    note: str = ""


class Column(NamedTuple):
    """The head of a column; numbers stand at the right."""

    name: str
    is_number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows under heads. `search` is the label of a search field, "" for none; `marked` numbers the rows to stand out.

    With `is_sortable` readers can sort by any column.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    search: str = ""
    is_sortable: bool = False
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart:
    """A drawing whose `title` says the finding; `label` says in words what it shows, `numbers` in figures.

    `legend` has each curve's name and CSS class.
    """

    kind: ClassVar[str] = "chart"
    title: str
    svg: Markup
    label: str
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""
    numbers: Table | None = None


@dataclass(frozen=True)
class Row:
    """Blocks side by side where there is room."""

    kind: ClassVar[str] = "row"
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Facts:
    """Names with what is to be said of each; a text of several lines is a list."""

    kind: ClassVar[str] = "facts"
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Note:
    """A remark, or a warning that must not be overlooked."""

    kind: ClassVar[str] = "note"
    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Commands:
    """Lines for a terminal, with what they do."""

    kind: ClassVar[str] = "commands"
    about: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Folded:
    """Blocks that are shown when asked for, and in print."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence[Block]


class Disc(NamedTuple):
    """A patch: centre and radius in pixels of a photograph of `Photo.size`, and what it stands for.

    `css` is "" for votes, "for" and "against" for what speaks for and against a class.
    """

    x: float
    y: float
    radius: float
    css: str = ""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph as the model saw it, with its final votes.

    `verdict` is "right", "wrong" or "" where neither is meant. `lines` stand below the title; `chances` are the
    likeliest classes with their probabilities.
    """

    image: Image.Image
    alt: str
    title: str
    verdict: str = ""
    lines: Sequence[str] = ()
    chances: Sequence[tuple[str, float]] = ()
    discs: Sequence[Disc] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.image.size


@dataclass(frozen=True)
class Gallery:
    """Photographs under a heading."""

    kind: ClassVar[str] = "gallery"
    title: str
    about: str
    photos: Sequence[Photo]


@dataclass(frozen=True)
class Pair:
    """Two classes that are mistaken for each other, side by side."""

    title: str
    count: str
    photos: Sequence[Photo]

    @property
    def proportion(self) -> float:
        """Width over height of a frame that any of the photographs fits in at full width, 1 at least."""
        return max(1.0, min((width / height for width, height in (photo.size for photo in self.photos)), default=1.0))


@dataclass(frozen=True)
class Pairs:
    """The most confused pairs."""

    kind: ClassVar[str] = "pairs"
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Picture:
    """A finished picture with what it says."""

    kind: ClassVar[str] = "picture"
    title: str
    photo: Photo
    note: str = ""


Block = Table | Chart | Row | Facts | Note | Commands | Folded | Gallery | Pairs | Picture


@dataclass(frozen=True)
class Section:
    """A part of the page: the anchor, its heading, a shorter one for the list of contents, a sentence, and blocks."""

    anchor: str
    title: str
    short: str
    lead: str
    blocks: Sequence[Block]


class Tile(NamedTuple):
    """One of the figures at the top."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Headline:
    """The top of the page: the figure that counts, its interval as a bar from 0 to 1, and what it means in words."""

    name: str
    value: str
    interval: str
    bar: Bar
    meaning: str
    tiles: Sequence[Tile]
    warnings: Sequence[str] = ()
    chance: float | None = None


@dataclass(frozen=True)
class Page:
    """A whole page; `headline` is None where there is no one figure, `has_votes` says that votes are drawn."""

    title: str
    kicker: str
    subtitle: str
    headline: Headline | None
    sections: Sequence[Section]
    footer: str = ""
    has_votes: bool = False
