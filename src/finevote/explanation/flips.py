"""The images on which two classifiers part: named right by one of them alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.figures import Cell, show_image

_COLUMNS = 6
_SIDE_IN, _GAP_IN, _MARGIN_IN, _TOP_IN = 1.6, 0.25, 0.35, 1.15
_HEADING_IN, _LINE_IN, _AFTER_IN = 0.34, 0.17, 0.24
_NUM_LINES = 3  # the true name and two answers


class Flip(NamedTuple):
    """An image as the models see it, its true class, and what each of two answers with which probability."""

    image: Image.Image
    true_name: str
    first: tuple[str, float]
    second: tuple[str, float]


def flip_sheet(
    gained: Sequence[Flip], lost: Sequence[Flip], *, first: str, second: str, num_gained: int, num_lost: int
) -> Figure:
    """Draw images that the second alone names right, and below those that the first alone does, six a row.

    Args:
        gained: right in the second alone.
        lost: right in the first alone.
        first: name of the first.
        second: name of the second.
        num_gained: how many there are in all.
        num_lost: the same of those lost.

    Raises:
        ArgumentError: there are no images.
    """
    parts = [
        (f"Only B is right: {_count(gained, num_gained)}", gained),
        (f"Only A is right: {_count(lost, num_lost)}", lost),
    ]
    filled = [(heading, flips) for heading, flips in parts if flips]
    if not filled:
        raise ArgumentError("there is nothing to draw: no image is named right by one of the two alone")
    height = _TOP_IN + sum(_HEADING_IN + sum(map(_row_height, _rows(flips))) for _, flips in filled)
    width = 2 * _MARGIN_IN + _COLUMNS * (_SIDE_IN + _GAP_IN) - _GAP_IN
    figure = style.new_figure(width, height)
    title = f"Where two classifiers part: {num_gained:,} images gained, {num_lost:,} lost"
    style.add_text(figure, title, _MARGIN_IN, 0.2, size=style.TITLE_PT, bold=True)
    for letter, name, top in (("A", first, 0.48), ("B", second, 0.68)):
        line = style.fit_text(f"{letter} {name}", width_in=width - 2 * _MARGIN_IN, max_lines=1, size=style.TEXT_PT)
        style.add_text(figure, line, _MARGIN_IN, top, color=style.MUTED)
    top = _TOP_IN
    for heading, flips in filled:
        style.add_text(figure, heading, _MARGIN_IN, top, bold=True)
        top += _HEADING_IN
        for row in _rows(flips):
            foot = top + max(_size(flip.image)[1] for flip in row)
            for column, flip in enumerate(row):
                _draw(figure, flip, _MARGIN_IN + column * (_SIDE_IN + _GAP_IN), foot)
            top += _row_height(row)
    return figure


def _draw(figure: Figure, flip: Flip, left: float, foot: float) -> None:
    width, height = _size(flip.image)
    show_image(figure, flip.image, Cell(left, foot - height, width, height))
    style.add_text(figure, _line(flip.true_name, bold=True), left, foot + 0.06, size=style.SMALL_PT, bold=True)
    for number, (letter, (name, probability)) in enumerate((("A", flip.first), ("B", flip.second)), start=1):
        is_right = name == flip.true_name
        mark, color = (style.TICK, style.RIGHT) if is_right else (style.CROSS, style.WRONG)
        text = _line(f"{letter} {mark} {probability:.0%} {name}")
        style.add_text(figure, text, left, foot + 0.06 + number * _LINE_IN, size=style.SMALL_PT, color=color)


def _line(text: str, *, bold: bool = False) -> str:
    return style.fit_text(text.replace("_", " "), width_in=_SIDE_IN + 0.05, max_lines=1, size=style.SMALL_PT, bold=bold)


def _count(shown: Sequence[Flip], number: int) -> str:
    return f"{len(shown)} of {number:,}, drawn at random" if len(shown) < number else f"{number:,}"


def _rows(flips: Sequence[Flip]) -> list[Sequence[Flip]]:
    return [flips[start : start + _COLUMNS] for start in range(0, len(flips), _COLUMNS)]


def _row_height(row: Sequence[Flip]) -> float:
    return max(_size(flip.image)[1] for flip in row) + 0.06 + _NUM_LINES * _LINE_IN + _AFTER_IN


def _size(image: Image.Image) -> tuple[float, float]:
    """Return width and height in inches of the image made to fit its square."""
    longest = max(image.size)
    return _SIDE_IN * image.width / longest, _SIDE_IN * image.height / longest
