"""How a classifier fares with classes added to it: what the old ones lose, and how often the new ones are named."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from finevote.evaluation.addition import Values
from finevote.evaluation.figure import Figure, percent, points, share_of
from finevote.evaluation.paired import paired_bootstrap
from finevote.evaluation.shares import share
from finevote.types import Predictions


@dataclass(frozen=True)
class AddedNote:
    """In the report of a trained classifier: the classes that were added to it, and are no part of the figures."""

    class_names: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the names ready for JSON."""
        return {"class_names": list(self.class_names)}

    def table(self) -> None:
        """Return nothing: the note says it all."""

    def notes(self) -> list[str]:
        """Return that the figures are without the added classes."""
        names = ", ".join(self.class_names)
        return [f"these figures are without the classes added later ({names}): --with-added measures with them"]


class AddedRow(NamedTuple):
    """How photographs of an added class fared; top_1 is None where none could be judged.

    `taken_for` is what it is most often mistaken for, None where it never is.
    """

    class_name: str
    num_images: int
    top_1: Figure | None
    taken_for: str | None


@dataclass(frozen=True)
class AddedFigures:
    """The figures, with 95% intervals.

    `before` and `after` are the top-1 accuracy of the old classes' images without and with the new ones, `change` the
    paired difference; `num_taken` of them were right and are now named as a new class. `new` is the top-1 over all new
    images, each judged among all classes; None where none could be judged. `is_left_out` tells that these are the
    photographs that the classes were made of, each judged without itself, and `is_across` that each fifth of the old
    images was judged by what the others tell.
    """

    split: str
    num_images: int
    before: Figure
    after: Figure
    change: Figure
    num_taken: int
    new: Figure | None
    rows: tuple[AddedRow, ...]
    is_left_out: bool
    is_across: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        plain = {name: getattr(self, name) for name in ("split", "num_images", "num_taken", "is_left_out", "is_across")}
        figures = {name: getattr(self, name) for name in ("before", "after", "change", "new")}
        rows = [row._asdict() | {"top_1": row.top_1 and row.top_1._asdict()} for row in self.rows]
        return {**plain, **{name: value and value._asdict() for name, value in figures.items()}, "rows": rows}

    def table(self) -> Table:
        """Return the figures as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column(f"with {_count(len(self.rows), 'added class', 'es')} (95%)", overflow="fold")
        table.add_column("top-1", justify="right", overflow="fold")
        table.add_column("most mistaken for", overflow="fold")
        table.add_row(f"old classes before, {self.num_images:,} {self.split} images", percent(self.before), "")
        table.add_row("old classes after", percent(self.after), "")
        table.add_row("    change in points", points(self.change), f"{self.num_taken:,} now named as new")
        if self.new is not None:
            table.add_row("new classes (photographs)", percent(self.new), "")
        for row in self.rows:
            top_1 = "not measured" if row.top_1 is None else percent(row.top_1)
            taken_for = Text("" if row.taken_for is None else row.taken_for)
            table.add_row(Text(f"    {row.class_name} ({row.num_images:,})"), top_1, taken_for)
        return table

    def notes(self) -> list[str]:
        """Return what the figures rest on."""
        notes = []
        if self.is_left_out:
            notes.append(
                "new classes are measured on the photographs that they are made of, each left out of its prototype; "
                "new photographs, from elsewhere, may fare worse"
            )
        if self.is_across:
            notes.append("each fifth of the validation images is judged by what the others tell")
        if self.rows and self.new is None and not self.is_left_out:
            return [*notes, "the split has no images of the added classes: only what the old ones lose is measured"]
        if unmeasured := [row.class_name for row in self.rows if row.top_1 is None]:
            notes.append(f"nothing tells how well these are named: {', '.join(unmeasured)}")
        return notes


def measure_added(
    old: Predictions,
    extended: Values,
    new_logits: Values,
    new_labels: NDArray[np.int64],
    *,
    class_names: Sequence[str],
    num_added: int,
    split: str,
    is_left_out: bool = False,
    is_across: bool = False,
) -> AddedFigures:
    """Return the figures.

    Args:
        old: images of the classes that were there, whose labels are numbers among these.
        extended: (m, F + A) their logits over all classes, the A new ones last.
        new_logits: (n, F + A) those of the new images; none with a logit that is not a number are judged.
        new_labels: (n,) numbers among all classes, F and above.
        class_names: of all F + A.
        num_added: A.
        split: what the old images are of.
        is_left_out: as in `AddedFigures`.
        is_across: as in `AddedFigures`.
    """
    first = len(class_names) - num_added
    was_right = extended[:, :first].argmax(axis=1) == old.labels
    named = extended.argmax(axis=1)
    is_right = named == old.labels
    change = paired_bootstrap(was_right, is_right, seed=0, groups=old.groups)
    judged = np.isfinite(new_logits).all(axis=1)
    answers, truths = new_logits[judged].argmax(axis=1), new_labels[judged]
    return AddedFigures(
        split=split,
        num_images=len(old.labels),
        before=share_of(was_right, old),
        after=share_of(is_right, old),
        change=change.figure,
        num_taken=int((was_right & (named >= first)).sum()),
        new=_share(answers == truths),
        rows=tuple(
            _row(class_names, answers[truths == label], label, num_images=int((new_labels == label).sum()))
            for label in range(first, first + num_added)
        ),
        is_left_out=is_left_out,
        is_across=is_across,
    )


def _row(class_names: Sequence[str], answers: NDArray[np.int64], label: int, *, num_images: int) -> AddedRow:
    wrong = answers[answers != label]
    taken_for = class_names[int(np.bincount(wrong).argmax())] if len(wrong) else None
    return AddedRow(class_names[label], num_images, _share(answers == label), taken_for)


def _share(is_right: NDArray[np.bool_]) -> Figure | None:
    return Figure(*share(is_right)[:3]) if len(is_right) else None


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}{plural}"
