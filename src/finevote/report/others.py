"""Figures that a report has and that no part of the page is made for: they are shown as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finevote.report.blocks import Block, Cell, Column, Facts, Section, Table
from finevote.report.text import words

KNOWN = frozenset({
    "schema_version", "confidence", "run", "data", "split", "bundle_sha256", "weights_sha256", "keep_rate", "setting",
    "protocol", "notes", "skipped", "seen", "num_test_openings", "num_unread_openings", "pointing", "on_subject",
    "num_images", "num_groups", "num_classes", "top_1", "top_5", "macro", "top_1_unseen", "per_class", "confused",
    "probes", "trust", "selective", "taxonomy", "unknown", "augmentation", "fusion", "retrieval", "faithfulness",
    "pointing_game", "subject_game",
})  # fmt: skip


def others(report: Mapping[str, Any], *, known: frozenset[str] = KNOWN) -> list[Section]:
    """Return a section for each kind of figures that is not among the known ones."""
    return [
        Section(
            f"more-{name.replace('_', '-')}", words(name).capitalize(), words(name).capitalize(), "", _blocks(values)
        )
        for name, values in report.items()
        if name not in known and isinstance(values, Mapping | list) and values
    ]


def _blocks(values: Any) -> list[Block]:
    if not isinstance(values, Mapping):
        return _table("", values)
    plain = [(words(name), _write(value)) for name, value in values.items() if not _is_rows(value)]
    blocks: list[Block] = [Facts(plain)] if plain else []
    for name, value in values.items():
        if _is_rows(value):
            blocks += _table(words(name), value)
    return blocks


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _table(caption: str, rows: Sequence[Any]) -> list[Block]:
    if not _is_rows(rows):
        return [Facts([(caption or "values", _write(rows))])]
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name)) for name in names] for row in rows]
    return [Table(caption, [Column(words(name), is_number=name != names[0]) for name in names], cells)]


def _cell(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(_write(value), float(value) if is_number else None)


def _write(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        if {"value", "low", "high"} <= value.keys():
            return f"{value['value']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
        return ", ".join(f"{words(name)} {_write(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_write(inner) for inner in value)
    return "" if value is None else str(value)
