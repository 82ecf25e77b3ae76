"""What a comparison found, as values, as JSON, and as a table for people."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finevote.evaluation.figure import Figure

CONFIDENCE = 0.95
_NUM_CLASSES_SHOWN = 5


class Standing(NamedTuple):
    """How often one contestant is right: the mean over its seeds, and the standard deviation between them.

    `sd` is None with one seed; `method` tells how the interval was made.
    """

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    accuracy: float
    sd: float | None
    low: float
    high: float
    method: str


class ChangedClass(NamedTuple):
    """How a class fared; the p-value is that of `paired_test`, adjusted for the number of classes (Holm)."""

    class_name: str
    num_images: int
    gained: int
    lost: int
    p_value: float


class Duel(NamedTuple):
    """The first contestant beside another one; the difference is the other's accuracy minus the first's.

    `only_first` and `only_other` count images that one alone names right, and `classes` what each class gains and
    loses, and `macro` is the difference of macro accuracies; None and empty where a contestant has several seeds.
    `p_adjusted` is Holm's over the duels.
    """

    first: str
    other: str
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    test: str
    only_first: int | None = None
    only_other: int | None = None
    classes: tuple[ChangedClass, ...] = ()
    macro: Figure | None = None


@dataclass(frozen=True)
class Comparison:
    """Contestants on the same `num_images` images; drawn anew by `num_groups` subjects, None if by image.

    `num_test_openings` counts, by run, how often the test split was measured on; empty for another split. `settings`
    says in words what each run was trained and chosen on.
    """

    split: str
    num_images: int
    num_groups: int | None
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]
    settings: Mapping[str, str]
    num_test_openings: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison ready for JSON; shares are fractions, not percent."""
        values = {**vars(self), "standings": [row._asdict() for row in self.standings]}
        values["duels"] = [
            {
                **duel._asdict(),
                "classes": [row._asdict() for row in duel.classes],
                "macro": duel.macro and duel.macro._asdict(),
            }
            for duel in self.duels
        ]
        values["settings"], values["num_test_openings"] = dict(self.settings), dict(self.num_test_openings)
        return {"confidence": CONFIDENCE, **values}

    def class_table(self) -> str:
        """Return what every class gains and loses as CSV; a head alone where no duel is of single runs."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("first", "other", *ChangedClass._fields))
        writer.writerows((duel.first, duel.other, *row) for duel in self.duels for row in duel.classes)
        return file.getvalue()

    def table(self) -> RenderableType:
        """Return the comparison as `rich` prints it."""
        unit = f", {self.num_groups:,} subjects" if self.num_groups is not None else ""
        parts: list[RenderableType] = [Text(f"{self.split} split, {self.num_images:,} images{unit}", style="bold"), ""]
        parts.append(_standing_table(self.standings))
        if self.duels:
            parts += ["", _duel_table(self.duels)]
        for duel in self.duels:
            if any(row.gained or row.lost for row in duel.classes):
                parts += ["", _class_table(duel)]
        parts += [Text(f"\n{note}") for note in self.all_notes()]
        return Group(*parts)

    def all_notes(self) -> list[str]:
        """Return what must stand beside the figures, in sentences."""
        settings = list(dict.fromkeys(self.settings.values()))
        notes = settings if len(settings) == 1 else [f"{run}: {setting}" for run, setting in self.settings.items()]
        notes = [*notes, *self.notes]
        counts = self.num_test_openings
        if len(counts) > 1 and len(set(counts.values())) == 1:
            notes.append(f"test split opened {_times(next(iter(counts.values())))} with each of the {len(counts)} runs")
        elif counts:
            times = ", ".join(f"{_times(count)} with {run}" for run, count in counts.items())
            notes.append(f"test split opened {times}")
        return notes


def describe_p(p_value: float) -> str:
    """Return a p-value with three digits after the point."""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def describe_points(value: float) -> str:
    """Return a difference of shares in points of a percent, with its sign."""
    return f"{value * 100:+.2f}"


def verdict(duel: Duel) -> str:
    """Return in words what the interval and the adjusted p-value allow to be said."""
    if duel.p_adjusted >= 1 - CONFIDENCE or duel.low <= 0 <= duel.high:
        return "no difference shown"
    return "better" if duel.difference > 0 else "worse"


def new_table(first: str, *others: str) -> Table:
    """Return an empty table, its first column of text and the others of numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column(first, overflow="fold")
    for other in others:
        table.add_column(other, justify="right", overflow="fold")
    return table


def _standing_table(standings: Sequence[Standing]) -> Table:
    table = new_table("", "seeds", "top-1", "sd", "95% interval")
    for row in standings:
        sd = "" if row.sd is None else f"{row.sd * 100:.2f}"
        interval = f"{row.low * 100:.1f} to {row.high * 100:.1f}%"
        table.add_row(Text(row.name), str(len(row.seeds)), f"{row.accuracy:.2%}", sd, interval)
    return table


def _duel_table(duels: Sequence[Duel]) -> Table:
    table = new_table(f"beside {duels[0].first}", "points", "95% interval", "p", "p (Holm)", "")
    for duel in duels:
        p_values = describe_p(duel.p_value), describe_p(duel.p_adjusted)
        found = Figure(duel.difference, duel.low, duel.high)
        table.add_row(Text(duel.other), *_describe_difference(found), *p_values, verdict(duel))
        if duel.macro is not None:
            table.add_row("    macro accuracy", *_describe_difference(duel.macro))
    return table


def _describe_difference(found: Figure) -> tuple[str, str]:
    return describe_points(found.value), f"{describe_points(found.low)} to {describe_points(found.high)}"


def _class_table(duel: Duel) -> Table:
    table = new_table(f"{duel.other}: classes", "images", "gained", "lost", "p (Holm)")
    changed = [row for row in duel.classes if row.gained or row.lost]
    for row in sorted(changed, key=lambda row: (-abs(row.gained - row.lost), row.class_name))[:_NUM_CLASSES_SHOWN]:
        counts = (str(row.num_images), str(row.gained), str(row.lost))
        table.add_row(Text(row.class_name), *counts, describe_p(row.p_value))
    return table


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
