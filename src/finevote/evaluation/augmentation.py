"""Test-time augmentation: what it gains to look at several views of each image, and what it costs."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.table import Table

from finevote.data.views import VIEWS
from finevote.evaluation.figure import Figure, percent, points, share_of
from finevote.evaluation.fusion import joint_logits
from finevote.evaluation.paired import Estimate, holm, paired_bootstrap, paired_test
from finevote.types import PLAIN, Predictions


class ViewsRow(NamedTuple):
    """How images fare by one kind of views, at `num_passes` forward passes each, beside the plain view.

    `gained` images does the average alone name right, `lost` ones the plain view alone; `p_value` is that of
    `paired_test`, after Holm over the kinds of views.
    """

    views: str
    num_passes: int
    accuracy: Figure
    gain: Estimate
    gained: int
    lost: int
    p_value: float


@dataclass(frozen=True)
class Augmentation:
    """The accuracy of the plain view, and of every kind of views that can be put together of those looked at."""

    plain: Figure
    rows: tuple[ViewsRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        rows = [
            {**row._asdict(), "accuracy": row.accuracy._asdict(), "gain": row.gain.figure._asdict()}
            for row in self.rows
        ]
        return {"plain": self.plain._asdict(), "views": rows}

    def table(self) -> Table:
        """Return accuracy and cost by kind of views, as `rich` prints it."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("views (95%)", overflow="fold")
        for name in ("passes", "accuracy", "gain in points", "p (Holm)"):
            table.add_column(name, justify="right", overflow="fold")
        table.add_row(PLAIN, "1", percent(self.plain), "", "")
        for row in self.rows:
            figures = (percent(row.accuracy), points(row.gain.figure), f"{row.p_value:.3g}")
            table.add_row(row.views, str(row.num_passes), *figures)
        return table

    def notes(self) -> list[str]:
        """Return what the views leave as it is."""
        plain = (
            "test-time augmentation: every other figure is of the plain view alone, and the bundle's temperature too"
        )
        return [f"{plain}; probabilities of averaged views are not calibrated"]


def measure_augmentation(predictions: Predictions) -> Augmentation | None:
    """Return what averaging views gains on a split; None where only the plain view was looked at."""
    logits = predictions.view_logits
    if logits is None:
        return None
    place = {name: number for number, name in enumerate(predictions.view_names)}
    found = {}
    for kind, views in VIEWS.items():
        if kind != PLAIN and all(view.name in place for view in views):
            joint = joint_logits(logits[:, [place[view.name] for view in views]])
            found[kind] = joint.argmax(axis=1) == predictions.labels
    plain = predictions.logits.argmax(axis=1) == predictions.labels
    tests = [paired_test(plain, right, groups=predictions.groups) for right in found.values()]
    p_values = holm([test.p_value for test in tests])
    rows = [
        ViewsRow(
            views=kind,
            num_passes=len(VIEWS[kind]),
            accuracy=share_of(right, predictions),
            gain=paired_bootstrap(plain, right, seed=0, groups=predictions.groups),
            gained=test.only_second,
            lost=test.only_first,
            p_value=p_value,
        )
        for (kind, right), test, p_value in zip(found.items(), tests, p_values, strict=True)
    ]
    return Augmentation(share_of(plain, predictions), tuple(rows))
