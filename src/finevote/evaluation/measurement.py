"""What was measured, and under which circumstances: all that the figures of a report need beside the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from finevote.evaluation.pointing import PointingFigure, PointingGame

_TUPLES: Mapping[str, Callable[..., Any]] = {
    "pointing": PointingFigure,
    "on_subject": PointingFigure,
    "pointing_game": PointingGame,
    "subject_game": PointingGame,
}
_LATER = frozenset({"num_unread_openings", "pointing_game", "subject_game"})  # not in the reports of earlier versions


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One look at a split with one bundle.

    Attributes:
        run: the folder.
        data: name of the data set.
        split: "val" or "test".
        bundle_sha256: of the bundle's content.
        weights_sha256: of its weights; at the same `keep_rate` the same weights predict the same.
        keep_rate: share of patches that each reducing layer kept.
        setting: what the model was trained and chosen on, in words.
        protocol: how a published set was divided, where it knows several ways.
        notes: what else is to be known of the data.
        skipped: images that could not be read, and so do not count, to the reason.
        seen: images whose very file the model was fitted to or chosen on, to that one; None where that is unknown.
        num_test_openings: how often the test split was measured on, this time included; None for another split.
        num_unread_openings: lines of the ledger that cannot be read, each counted as an opening.
        pointing: share of the final votes in the telling parts; None unless boxes are known and there are votes.
        on_subject: the same in the boxes of whole subjects.
        pointing_game: how often the most-voted patch lies in a telling part; None as for `pointing`.
        subject_game: how often it lies on the subject.
    """

    run: str
    data: str
    split: str
    bundle_sha256: str
    weights_sha256: str = ""
    keep_rate: float = 1.0
    setting: str = ""
    protocol: str | None = None
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, str] | None = None
    num_test_openings: int | None = None
    num_unread_openings: int = 0
    pointing: PointingFigure | None = None
    on_subject: PointingFigure | None = None
    pointing_game: PointingGame | None = None
    subject_game: PointingGame | None = None

    def circumstances(self) -> dict[str, Any]:
        """Return the fields of this class ready for JSON; `from_dict` takes them back."""
        values = {one.name: getattr(self, one.name) for one in fields(Measurement)}
        tuples = {name: values[name] and values[name]._asdict() for name in _TUPLES}
        return {**values, "notes": list(self.notes), **tuples}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the measurement of a report's JSON; other keys are left alone.

        Raises:
            KeyError, TypeError: it is no report of this version.
        """
        found = {
            one.name: values[one.name] for one in fields(Measurement) if one.name in values or one.name not in _LATER
        }
        tuples = {name: kind(**found[name]) for name, kind in _TUPLES.items() if found.get(name)}
        return cls(**{**found, "notes": tuple(found["notes"]), **tuples})


def describe_unread(number: int) -> str:
    """Return in words that so many lines of a ledger cannot be read."""
    lines = "1 line of the ledger" if number == 1 else f"{number:,} lines of the ledger"
    return f"{lines} could not be read and {'counts as an opening' if number == 1 else 'count as openings'}"
