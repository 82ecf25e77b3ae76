"""Pieces of Markdown: figures with their intervals, tables, names made harmless."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finevote.evaluation.figure import Figure, percent


def plain(text: object) -> str:
    """Return a name as Markdown shows it letter by letter, on one line."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]|~#])", r"\\\1", html.escape(line, quote=False))


def figure_of(values: Mapping[str, Any] | None) -> Figure | None:
    """Return a figure of a report's JSON; None where it has none."""
    if not values or any(values.get(name) is None for name in Figure._fields):
        return None
    return Figure(*(float(values[name]) for name in Figure._fields))


def percent_of(values: Mapping[str, Any] | None) -> str:
    """Return a share of a report's JSON in percent with its interval; a dash where it has none."""
    figure = figure_of(values)
    return "-" if figure is None else percent(figure)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the cells are Markdown already."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def bullets(items: Iterable[str]) -> list[str]:
    """Return the lines of a list."""
    return [f"- {item}" for item in items]


def section(title: str, *parts: Sequence[str]) -> list[str]:
    """Return the lines of a section, its parts apart; none where all of them are empty."""
    filled = [part for part in parts if part]
    if not filled:
        return []
    return [f"## {title}", "", *(line for part in filled for line in (*part, ""))]
