"""How the page writes figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from finevote.evaluation.figure import Figure
from finevote.report.blocks import Bar, Cell

Values = Mapping[str, Any]


def figure_of(values: Values) -> Figure:
    """Return the figure that a report's JSON has as value, low and high."""
    return Figure(float(values["value"]), float(values["low"]), float(values["high"]))


def share(value: float) -> str:
    """Return a share in percent."""
    return f"{value:.1%}"


def interval(values: Values | Figure) -> str:
    """Return the ends of a share's interval in percent."""
    found = values if isinstance(values, Figure) else figure_of(values)
    return f"{found.low * 100:.1f} to {found.high * 100:.1f}%"


def share_cell(values: Values | None) -> Cell:
    """Return a share with its interval below; a blank for None."""
    if values is None:
        return Cell("")
    found = figure_of(values)
    return Cell(share(found.value), found.value, note=interval(found))


def number_cell(values: Values | None, *, digits: int) -> Cell:
    """Return a number with its interval below; a blank for None."""
    if values is None:
        return Cell("")
    value, low, high = figure_of(values)
    return Cell(f"{value:.{digits}f}", value, note=f"{low:.{digits}f} to {high:.{digits}f}")


def points_cell(values: Values) -> Cell:
    """Return a difference of shares in points, with its interval below."""
    value, low, high = figure_of(values)
    return Cell(f"{value * 100:+.1f}", value, note=f"{low * 100:+.1f} to {high * 100:+.1f}")


def placed_cells(found: Figure, scale: tuple[float, float]) -> list[Cell]:
    """Return a share and its interval as two cells, the interval drawn on a scale."""
    return [Cell(share(found.value), found.value), Cell(interval(found), found.low, place(found, scale))]


def place(found: Figure, scale: tuple[float, float]) -> Bar:
    """Return where a figure and its interval lie on a scale; what is outside lies at its end."""
    low, high = scale

    def on_scale(value: float) -> float:
        return min(max((value - low) / (high - low), 0.0), 1.0)

    return Bar(*(on_scale(value) for value in (found.low, found.value, found.high)))


def scale_of(figures: Sequence[Figure]) -> tuple[float, float]:
    """Return a scale between tenths that holds all these shares and their intervals."""
    low = math.floor(min(found.low for found in figures) * 10 + 1e-9) / 10
    high = math.ceil(max(found.high for found in figures) * 10 - 1e-9) / 10
    return low, max(high, low + 0.1)


def describe_scale(scale: tuple[float, float]) -> str:
    """Return the ends of a scale in words."""
    return f"{scale[0]:.0%} to {scale[1]:.0%}"


def p_value(value: float) -> str:
    """Return a p-value with three digits after the point."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def times(number: int) -> str:
    """Return how often in words."""
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def words(name: str) -> str:
    """Return the name of a key as words."""
    return name.replace("_", " ")


def sentence(text: str) -> str:
    """Return a remark as a sentence."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
