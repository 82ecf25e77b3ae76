"""What the predictions of a split amount to: figures with intervals, for people, for JSON and as a table of classes."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finevote.evaluation.measurement import Measurement, describe_unread
from finevote.evaluation.metrics import confusion_matrix, most_confused_pairs, top_k_correct
from finevote.evaluation.section import Section
from finevote.evaluation.shares import Accuracy, macro_share, share
from finevote.types import Predictions

SCHEMA_VERSION = 1
CONFIDENCE = 0.95
NUM_SHOWN = 5
_NUM_KEPT = 50
Flags = NDArray[np.bool_]


class ClassRow(NamedTuple):
    """How the images of one class fared; accuracy, interval and its method are None for a class without images."""

    class_name: str
    num_images: int
    num_correct: int
    accuracy: float | None
    low: float | None
    high: float | None
    method: str | None


class Confusion(NamedTuple):
    """`num_images` images of `true_class` were taken for `predicted_class`."""

    true_class: str
    predicted_class: str
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Report(Measurement):
    """The figures of one split, beside the circumstances in which they were found.

    `top_5` is None with five classes or fewer. `top_1_unseen` is over the images that are not `seen`, None if all or
    none are. `num_groups` counts the groups that intervals take whole, None where every image stands by itself.
    `sections` holds all other kinds of figures, each by its name.
    """

    num_images: int
    num_classes: int
    top_1: Accuracy
    top_5: Accuracy | None
    macro: Accuracy
    per_class: tuple[ClassRow, ...]
    confused: tuple[Confusion, ...]
    top_1_unseen: Accuracy | None = None
    num_groups: int | None = None
    sections: Mapping[str, Section] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report ready for JSON, as docs/report.md describes it; shares are fractions, not percent."""
        figures = {name: getattr(self, name) for name in ("top_1", "top_5", "macro", "top_1_unseen")}
        return {
            "schema_version": SCHEMA_VERSION,
            "confidence": CONFIDENCE,
            **self.circumstances(),
            "num_images": self.num_images,
            "num_groups": self.num_groups,
            "num_classes": self.num_classes,
            **{name: figure and figure._asdict() for name, figure in figures.items()},
            "per_class": [row._asdict() for row in self.per_class],
            "confused": [row._asdict() for row in self.confused],
            **{name: section.to_dict() for name, section in self.sections.items()},
        }

    def class_table(self) -> str:
        """Return the per-class figures as CSV."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(ClassRow._fields)
        writer.writerows(self.per_class)
        return file.getvalue()

    def table(self) -> RenderableType:
        """Return the report as `rich` prints it."""
        parts: list[RenderableType] = [self._headline(), "", self._accuracy_table(), "", self._worst_table()]
        if self.confused:
            parts += ["", self._confusion_table()]
        for section in self.sections.values():
            if (table := section.table()) is not None:
                parts += ["", table]
        parts += [Text(f"\n{note}") for note in self._notes()]
        return Group(*parts)

    def _headline(self) -> Text:
        what = f"{self.run}: {self.split} split, {self.num_images:,} images of {self.num_classes} classes"
        return Text.assemble((what, "bold"), f"\n{self.setting}" if self.setting else "")

    def _accuracy_table(self) -> Table:
        table = _new_table("", "accuracy", "95% interval")
        figures = {"top-1": self.top_1, "top-5": self.top_5, "macro (mean of classes)": self.macro}
        for name, accuracy in figures.items():
            if accuracy is not None:
                table.add_row(name, f"{accuracy.value:.2%}", _describe_interval(accuracy.low, accuracy.high))
        return table

    def _worst_table(self) -> Table:
        table = _new_table("worst classes", "right", "accuracy", "95% interval")
        present = [row for row in self.per_class if row.accuracy is not None]
        for row in sorted(present, key=lambda row: (row.accuracy, row.class_name))[:NUM_SHOWN]:
            interval = _describe_interval(row.low or 0.0, row.high or 0.0)
            right = f"{row.num_correct} of {row.num_images}"
            table.add_row(Text(row.class_name), right, f"{row.accuracy:.1%}", interval)
        return table

    def _confusion_table(self) -> Table:
        table = _new_table("most confused", "taken for", "images")
        table.columns[1].justify = "left"
        for pair in self.confused[:NUM_SHOWN]:
            table.add_row(Text(pair.true_class), Text(pair.predicted_class), str(pair.num_images))
        return table

    def _notes(self) -> list[str]:
        notes = self._pointing_notes()
        if self.keep_rate < 1:
            notes.append(f"keep rate {self.keep_rate:g}: patches with the fewest votes leave the trunk early, merged")
        if self.num_groups is not None:
            notes.append(f"intervals take whole groups: {self.num_groups:,} of them in {self.num_images:,} images")
        for section in self.sections.values():
            notes += section.notes()
        notes += [f"{self.data}: {note}" for note in self.notes]
        if self.seen:
            notes.append(self._seen_note(len(self.seen)))
        if self.skipped:
            notes.append(f"{len(self.skipped)} images could not be read and do not count: {', '.join(self.skipped)}")
        if self.num_test_openings is not None:
            times = "once" if self.num_test_openings == 1 else f"{self.num_test_openings} times"
            unread = f"; {describe_unread(self.num_unread_openings)}" if self.num_unread_openings else ""
            notes.append(f"test split opened {times}{unread}")
        return notes

    def _pointing_notes(self) -> list[str]:
        notes = []
        for place, covers, figure, game in (
            ("in the telling parts", "cover", self.pointing, self.pointing_game),
            ("on the subject", "covers", self.on_subject, self.subject_game),
        ):
            if figure is not None:
                votes, area, lift, num_images = figure
                notes.append(
                    f"{votes:.1%} of the final votes fall {place}, which {covers} {area:.1%} of the view: "
                    f"{lift:.1f} times as many as by area ({num_images:,} images)"
                )
            if game is not None:
                notes.append(
                    f"the most-voted patch lies {place} in {game.hit_share:.1%} of {game.num_images:,} images "
                    f"({_describe_interval(game.low, game.high)}): {game.lift:.1f} times as often as by area "
                    f"({game.lift_low:.1f} to {game.lift_high:.1f})"
                )
        return notes

    def _seen_note(self, num_seen: int) -> str:
        files = "image has its very file" if num_seen == 1 else "images have their very files"
        note = f"WARNING: {num_seen:,} {self.split} {files} among those that the model was fitted to or chosen on"
        if self.top_1_unseen is None:
            return note
        value, low, high, _ = self.top_1_unseen
        return f"{note}; top-1 over the others: {value:.2%} ({_describe_interval(low, high)})"


def make_report(
    predictions: Predictions,
    measurement: Measurement,
    *,
    class_names: Sequence[str],
    sections: Mapping[str, Section] | None = None,
) -> Report:
    """Return the report of a split's predictions.

    Args:
        predictions: of the split.
        measurement: how they came about.
        class_names: in the order of the logits.
        sections: further kinds of figures, by name.

    Raises:
        ArgumentError: there are no images, an image's class is not known, or a logit is not finite.
    """
    logits, labels, groups = predictions.logits, predictions.labels, predictions.groups
    confusion = confusion_matrix(logits, labels)
    pairs = most_confused_pairs(confusion, limit=_NUM_KEPT)
    is_right = top_k_correct(logits, labels, k=1)
    is_unseen = np.array([image_id not in (measurement.seen or {}) for image_id in predictions.image_ids])
    everything = np.ones(len(labels), np.bool_)
    return Report(
        **vars(measurement),
        num_images=len(labels),
        num_groups=None if groups is None else len(np.unique(groups)),
        num_classes=len(class_names),
        top_1=_share(is_right, everything, groups),
        top_5=_share(top_k_correct(logits, labels, k=5), everything, groups) if len(class_names) > 5 else None,
        macro=macro_share(is_right, labels, groups=groups, confidence=CONFIDENCE),
        per_class=tuple(_class_row(name, is_right, labels == label, groups) for label, name in enumerate(class_names)),
        confused=tuple(Confusion(class_names[true], class_names[taken], count) for true, taken, count in pairs),
        top_1_unseen=_share(is_right, is_unseen, groups) if is_unseen.any() and not is_unseen.all() else None,
        sections=sections or {},
    )


def _share(is_right: Flags, is_meant: Flags, groups: np.ndarray | None) -> Accuracy:
    """Return the accuracy over the images that are meant."""
    return share(is_right[is_meant], groups=None if groups is None else groups[is_meant], confidence=CONFIDENCE)


def _class_row(class_name: str, is_right: Flags, is_meant: Flags, groups: np.ndarray | None) -> ClassRow:
    if not is_meant.any():
        return ClassRow(class_name, 0, 0, None, None, None, None)
    return ClassRow(class_name, int(is_meant.sum()), int(is_right[is_meant].sum()), *_share(is_right, is_meant, groups))


def _describe_interval(low: float, high: float) -> str:
    return f"{low * 100:.1f} to {high * 100:.1f}%"


def _new_table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column(first, overflow="fold")
    for other in others:
        table.add_column(other, justify="right", overflow="fold")
    return table
