"""What a soup came to, as values, JSON and a table: every ingredient, both averages, and the best run beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finevote.evaluation.figure import Figure, points
from finevote.evaluation.shares import Accuracy

UNIFORM, GREEDY = "uniform", "greedy"


class Member(NamedTuple):
    """A run that was tried: its accuracy on validation, whether the greedy soup has it, and what it is told by."""

    run: str
    seed: int | None
    accuracy: Accuracy
    is_in_greedy: bool
    weights_sha256: str
    bundle_sha256: str
    num_test_openings: int


class Mixed(NamedTuple):
    """An average of some of the runs, beside the best single one on the same images.

    `difference` is the average minus the run; `only_run` and `only_soup` count images that one alone names right, and
    `p_value` is of the exact paired test.
    """

    kind: str
    runs: tuple[str, ...]
    accuracy: Accuracy
    difference: Figure
    only_run: int
    only_soup: int
    p_value: float


@dataclass(frozen=True)
class Soup:
    """All that was found on the `num_images` of validation; `members` are sorted, the best first.

    `kind` is the average that was kept, `num_groups` the subjects that intervals take whole, None where every image
    stands by itself, `is_random` whether the runs began from random weights.
    """

    kind: str
    num_images: int
    num_groups: int | None
    members: tuple[Member, ...]
    uniform: Mixed
    greedy: Mixed
    is_random: bool

    @property
    def kept(self) -> Mixed:
        """The average that was kept."""
        return self.greedy if self.kind == GREEDY else self.uniform

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; shares are fractions, not percent."""
        return {
            "kind": self.kind,
            "split": "val",
            "num_images": self.num_images,
            "num_groups": self.num_groups,
            "members": [{**row._asdict(), "accuracy": row.accuracy._asdict()} for row in self.members],
            **{mixed.kind: _describe(mixed) for mixed in (self.uniform, self.greedy)},
            "notes": self.notes(),
        }

    def table(self) -> RenderableType:
        """Return it as `rich` prints it."""
        unit = "" if self.num_groups is None else f", {self.num_groups:,} subjects"
        head = Text(f"val split, {self.num_images:,} images{unit}", style="bold")
        return Group(head, "", self._accuracies(), "", self._tests(), *(Text(f"\n{note}") for note in self.notes()))

    def notes(self) -> list[str]:
        """Return what must stand beside the figures, in sentences."""
        best, count = self.members[0].run, len(self.greedy.runs)
        chosen_here = (
            f"{best} is the best of {len(self.members)} on these images, and the greedy soup was chosen on them too: "
            "its gain here is flattered and its p-value too small; the test split has not been looked at"
        )
        notes = [chosen_here]
        if count == 1:
            notes.append(f"no average is as accurate as the best run: the greedy soup is {best} alone")
        if self.is_random:
            notes.append(
                "the runs began from random weights, each from its own, and the average of such runs is mostly worth "
                "nothing: let all begin from the same pretrained ones"
            )
        if opened := [f"{row.run} {row.num_test_openings}" for row in self.members if row.num_test_openings]:
            notes.append(f"the test split was opened before with runs of this soup, times: {', '.join(opened)}")
        return notes

    def _accuracies(self) -> Table:
        table = _new_table("", "top-1", "95% interval", "in greedy")
        for row in self.members:
            seed = "" if row.seed is None else f" (seed {row.seed})"
            table.add_row(Text(f"{row.run}{seed}"), *_cells(row.accuracy), "yes" if row.is_in_greedy else "no")
        for mixed in (self.uniform, self.greedy):
            table.add_row(f"{mixed.kind} soup of {len(mixed.runs)}", *_cells(mixed.accuracy), "")
        return table

    def _tests(self) -> Table:
        table = _new_table("beside the best run", "points (95% interval)", "gained", "lost", "p")
        for mixed in (self.uniform, self.greedy):
            counts = (str(mixed.only_soup), str(mixed.only_run))
            table.add_row(f"{mixed.kind} soup", points(mixed.difference), *counts, f"{mixed.p_value:.2g}")
        return table


def _describe(mixed: Mixed) -> dict[str, Any]:
    values = mixed._asdict() | {"accuracy": mixed.accuracy._asdict(), "difference": mixed.difference._asdict()}
    return values | {"runs": list(mixed.runs)}


def _cells(accuracy: Accuracy) -> Sequence[str]:
    return f"{accuracy.value:.2%}", f"{accuracy.low * 100:.1f} to {accuracy.high:.1%}"


def _new_table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right")
    return table
