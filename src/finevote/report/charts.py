"""Curves as inline SVG whose colours are those of the page, light or dark, on a screen or on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 420, 264  # small, so that the text can be read on a telephone
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 28, 40
_MAP_LEFT = 64


@dataclass(frozen=True)
class Curve:
    """A curve: its name, its points (x, y), and its CSS class: s1, s2, ... or "muted" for what others are held against.

    `radii` has the radius of a dot on each point, in units of the drawing; empty for none.
    """

    name: str
    points: Sequence[tuple[float, float]]
    css: str
    radii: Sequence[float] = ()


class Axis(NamedTuple):
    """An axis: what it counts, its ends, and how its numbers are written."""

    label: str
    low: float
    high: float
    write: Callable[[float], str]
    num_ticks: int = 5


def draw(curves: Sequence[Curve], x: Axis, y: Axis, *, label: str, ring: tuple[float, float] | None = None) -> Markup:
    """Return curves as an SVG with the text alternative `label`; `ring` marks one point."""
    parts = [*_grid(x, y)]
    for curve in curves:
        spots = [(_across(point[0], x), _up(point[1], y)) for point in curve.points]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in spots)
        parts.append(f'<polyline class="curve {curve.css}" points="{path}"/>')
        for (left, top), radius in zip(spots, curve.radii, strict=False):
            parts.append(f'<circle class="dot {curve.css}" cx="{left:.1f}" cy="{top:.1f}" r="{radius:.1f}"/>')
    if ring is not None:
        parts.append(f'<circle class="ring" cx="{_across(ring[0], x):.1f}" cy="{_up(ring[1], y):.1f}" r="5"/>')
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704  # names and labels are escaped, all else is numbers


def legend_of(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """Return each curve's name and CSS class; one curve alone needs no legend."""
    return [(curve.name, curve.css) for curve in curves] if len(curves) > 1 else []


def ticks(low: float, high: float, *, number: int = 5) -> list[float]:
    """Return about `number` round values from `low` to `high`.

    The step is 1, 2, 2.5 or 5 times a power of ten, the smallest that gives no more than `number` + 1 values.
    """
    if not high > low:
        return [low]
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [multiple * step for multiple in range(first, last + 1)]


def as_percent(value: float) -> str:
    """Write a share on an axis."""
    return f"{value * 100:.3g}%"


def as_number(value: float) -> str:
    """Write a number on an axis."""
    return f"{value:.3g}"


def as_whole(value: float) -> str:
    """Write a whole number on an axis; others are left out."""
    return f"{value:,.0f}" if abs(value - round(value)) < 1e-6 else ""


def _grid(x: Axis, y: Axis) -> list[str]:
    right, foot = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in ticks(y.low, y.high, number=y.num_ticks):
        top = _up(value, y)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{top:.1f}" y2="{top:.1f}"/>')
        parts.append(_text(y.write(value), _LEFT - 7, top + 4, anchor="end"))
    for value in ticks(x.low, x.high, number=x.num_ticks):
        left = _across(value, x)
        parts.append(f'<line class="tick" x1="{left:.1f}" x2="{left:.1f}" y1="{foot}" y2="{foot + 4}"/>')
        parts.append(_text(x.write(value), left, foot + 18, anchor="middle"))
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{foot}" y2="{foot}"/>')
    parts.append(_text(x.label, right, _HEIGHT - 4, anchor="end", css="axis-label"))
    parts.append(_text(y.label, 0, 12, anchor="start", css="axis-label"))
    return parts


def _text(text: str, left: float, top: float, *, anchor: str, css: str = "tick-label") -> str:
    if not text:
        return ""
    return f'<text class="{css}" x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _across(value: float, axis: Axis) -> float:
    return _LEFT + (value - axis.low) / (axis.high - axis.low or 1.0) * (_WIDTH - _LEFT - _RIGHT)


def _up(value: float, axis: Axis) -> float:
    height = _HEIGHT - _TOP - _BOTTOM
    return _TOP + height - (value - axis.low) / (axis.high - axis.low or 1.0) * height


_ROOM_FOR_NUMBER = 30  # side of a cell that a number of two digits fits in


def heat_map(values: Sequence[Sequence[float | None]], names: Sequence[str], *, label: str) -> Markup:
    """Return a square map of values from 0 to 1 over the same names on both sides; a None is left blank."""
    number = len(names)
    side = (_WIDTH - _MAP_LEFT - _RIGHT) / max(number, 1)
    top, size = 8, min(12.0, side * 0.8)
    parts = []
    for row, line in enumerate(values):
        middle = top + (row + 0.5) * side + size * 0.35
        parts.append(_text(names[row], _MAP_LEFT - 7, middle, anchor="end"))
        for column, value in enumerate(line):
            if value is not None:
                place = f'x="{_MAP_LEFT + column * side:.1f}" y="{top + row * side:.1f}"'
                shade = f'width="{side - 1:.1f}" height="{side - 1:.1f}" fill-opacity="{min(max(value, 0.0), 1.0):.3f}"'
                parts.append(f'<rect class="cell" {place} {shade}><title>{value:.3f}</title></rect>')
                if side >= _ROOM_FOR_NUMBER:
                    css = "on-dark" if value > 0.75 else "on-light"
                    parts.append(
                        _text(f"{value:.2f}", _MAP_LEFT + (column + 0.5) * side, middle, anchor="middle", css=css)
                    )
    foot = top + number * side
    every = max(1, -(-number // 7))
    parts += [
        _text(names[column], _MAP_LEFT + (column + 0.5) * side, foot + 16, anchor="middle")
        for column in range(0, number, every)
    ]
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {foot + 26:.0f}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")  # noqa: S704  # as above
