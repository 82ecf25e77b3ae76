"""A page of findings: under each heading a few rows of panels, each one or two pictures side by side with a caption."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.figures import Cell, show_image

_SIDE_IN, _BETWEEN_IN = 1.45, 0.06
_PANEL_IN = 2 * _SIDE_IN + _BETWEEN_IN
_GAP_IN, _MARGIN_IN, _TOP_IN = 0.3, 0.35, 0.85
_HEADING_IN, _LINE_IN, _AFTER_ROW_IN, _AFTER_SECTION_IN = 0.36, 0.15, 0.28, 0.12
_COLUMNS = 4


@dataclass(frozen=True)
class Panel:
    """One or two pictures, a name for each of them, and what is to be said of them together."""

    images: tuple[Image.Image, ...]
    names: tuple[str, ...]
    remark: str = ""


@dataclass(frozen=True)
class Section:
    """Panels under a heading; `note` is written behind it, in grey."""

    heading: str
    note: str
    panels: tuple[Panel, ...]


def panel_sheet(sections: Sequence[Section], *, title: str, subtitle: str = "") -> Figure:
    """Draw the sections one below the other, four panels a row.

    Raises:
        ArgumentError: there are no panels.
    """
    filled = [section for section in sections if section.panels]
    if not filled:
        raise ArgumentError("there is nothing to draw: give at least one panel")
    height = _TOP_IN + sum(_section_height(section) for section in filled)
    width = 2 * _MARGIN_IN + _COLUMNS * (_PANEL_IN + _GAP_IN) - _GAP_IN
    figure = style.new_figure(width, height)
    style.add_heading(figure, title, subtitle, left_in=_MARGIN_IN, width_in=width - 2 * _MARGIN_IN)
    top = _TOP_IN
    for section in filled:
        _draw_section(figure, section, top)
        top += _section_height(section)
    return figure


def _draw_section(figure: Figure, section: Section, top: float) -> None:
    style.add_text(figure, section.heading, _MARGIN_IN, top, bold=True)
    indent = 1.03 * style.text_width_in(section.heading, size=style.TEXT_PT, bold=True) + 0.12  # as drawn it is wider
    style.add_text(figure, section.note, _MARGIN_IN + indent, top, color=style.MUTED)
    top += _HEADING_IN
    for row in _rows(section):
        foot = top + max(_height(image) for panel in row for image in panel.images)
        for column, panel in enumerate(row):
            _draw_panel(figure, panel, _MARGIN_IN + column * (_PANEL_IN + _GAP_IN), foot)
        top += _row_height(row)


def _draw_panel(figure: Figure, panel: Panel, left: float, foot: float) -> None:
    for number, image in enumerate(panel.images):
        width, height = _size(image)
        cell = Cell(left + number * (_SIDE_IN + _BETWEEN_IN), foot - height, width, height)
        show_image(figure, image, cell)
    line = foot + 0.06
    for text, color in (*((name, style.INK) for name in _names(panel)), (_remark(panel), style.MUTED)):
        style.add_text(figure, text, left, line, size=style.SMALL_PT, color=color)
        line += _LINE_IN * (1 + text.count("\n"))


def _rows(section: Section) -> list[tuple[Panel, ...]]:
    return [section.panels[start : start + _COLUMNS] for start in range(0, len(section.panels), _COLUMNS)]


def _section_height(section: Section) -> float:
    return _HEADING_IN + sum(_row_height(row) for row in _rows(section)) + _AFTER_SECTION_IN


def _row_height(row: Sequence[Panel]) -> float:
    pictures = max(_height(image) for panel in row for image in panel.images)
    lines = max(_num_lines(panel) for panel in row)
    return pictures + 0.06 + lines * _LINE_IN + _AFTER_ROW_IN


def _num_lines(panel: Panel) -> int:
    remark = _remark(panel)
    return len(panel.names) + (1 + remark.count("\n") if remark else 0)


def _names(panel: Panel) -> list[str]:
    return [_keep_end(name) for name in panel.names]


def _remark(panel: Panel) -> str:
    return style.fit_text(panel.remark, width_in=_PANEL_IN, max_lines=2, size=style.SMALL_PT)


def _keep_end(name: str) -> str:
    """Return a name on one line, its beginning cut off where it is too long: the end of a path tells more."""
    if _fits(name):
        return name
    start = bisect_left(range(len(name)), x=True, key=lambda count: _fits("…" + name[count:]))
    return "…" + name[start:]


def _fits(text: str) -> bool:
    return style.text_width_in(text, size=style.SMALL_PT) <= _PANEL_IN


def _size(image: Image.Image) -> tuple[float, float]:
    """Return width and height in inches of the image made to fit its square; at least a line of either is seen."""
    longest = max(image.size)
    return tuple(max(_SIDE_IN * side / longest, 0.03) for side in image.size)  # type: ignore[return-value]


def _height(image: Image.Image) -> float:
    return _size(image)[1]
