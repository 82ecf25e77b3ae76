"""What deletion and insertion curves come to: areas with their intervals, and what votes gain over other orders."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.errors import RunError
from finevote.evaluation.faithfulness import RANDOM, ROLLOUT, VOTES, FaithfulnessCurves
from finevote.evaluation.figure import Figure, number
from finevote.evaluation.means import mean_interval
from finevote.evaluation.predictions import MEASURE_AGAIN
from finevote.types import Predictions

DELETION, INSERTION = "deletion", "insertion"
BETTER, WORSE, NOTHING = "better", "worse", "no difference shown"
FEWEST = 10  # images, or subjects, below which no interval of a mean says anything
MINUS = "\N{MINUS SIGN}"
_PHRASES = {VOTES: "by votes", RANDOM: "at random", ROLLOUT: "by rollout"}
_DOES = {
    DELETION: "taking patches away {first} lowers the probability {how} than {second}",
    INSERTION: "bringing patches in {first} raises the probability {how} than {second}",
}
Groups = Sequence[Hashable] | NDArray[np.str_]


class OrderCurve(NamedTuple):
    """One order's mean curve over the images, the ends of its 95% intervals, and the area under it."""

    kind: str
    order: str
    area: Figure
    scores: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class Difference(NamedTuple):
    """The mean of the paired differences of two orders' areas; `shown` is "better", "worse" or "no difference shown".

    Better is less area for deletion, and more for insertion.
    """

    kind: str
    order: str
    versus: str
    difference: Figure
    shown: str


@dataclass(frozen=True)
class Faithfulness:
    """The section of a report: deletion and insertion by each order, and the differences that matter.

    `num_images` of the split's `num_in_split` were looked at, of `num_groups` subjects where these are known.
    """

    num_images: int
    num_in_split: int
    num_groups: int | None
    num_draws: int
    shares: tuple[float, ...]
    curves: tuple[OrderCurve, ...]
    differences: tuple[Difference, ...]

    @property
    def num_steps(self) -> int:
        """Steps in which all patches are changed."""
        return len(self.shares) - 1

    def headline(self) -> str:
        """Return in a few words what deletion shows of the first order beside random ones."""
        row = next(row for row in self.differences if row.kind == DELETION and row.versus == RANDOM)
        named = "voted patches" if row.order == VOTES else f"patches named {_PHRASES[row.order]}"
        if row.shown == NOTHING:
            return f"{named} and random ones: {NOTHING}"
        return f"{named} matter {'more' if row.shown == BETTER else 'less'} than random ones"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        return {
            "num_images": self.num_images,
            "num_steps": self.num_steps,
            "num_draws": self.num_draws,
            "shares": list(self.shares),
            "curves": [
                {
                    **curve._asdict(),
                    "area": curve.area._asdict(),
                    **{name: list(getattr(curve, name)) for name in ("scores", "low", "high")},
                }
                for curve in self.curves
            ],
            "differences": [{**row._asdict(), "difference": row.difference._asdict()} for row in self.differences],
        }

    def table(self) -> Table:
        """Return areas and differences as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("faithfulness, patches by", overflow="fold")
        for kind in (DELETION, INSERTION):
            table.add_column(f"{kind}, area", justify="right", overflow="fold")
        cells: dict[str, list[str]] = {}
        for curve in self.curves:
            cells.setdefault(curve.order, []).append(number(curve.area, digits=3))
        for row in self.differences:
            cells.setdefault(f"{row.order} {MINUS} {row.versus}", []).append(signed(row.difference))
        for name, areas in cells.items():
            table.add_row(name, *areas)
        return table

    def notes(self) -> list[str]:
        """Return what is shown and what is not, a sentence for each difference, and what was done."""
        looked = f"{self.num_images:,} of the split's {self.num_in_split:,} images"
        done = (
            f"faithfulness of {looked}: the probability (softmax, temperature 1) of the class that the model names, "
            f"over the share of patches changed, in {self.num_steps} steps; random: mean of {self.num_draws} draws"
        )
        if min(self.num_images, self.num_groups or FEWEST) < FEWEST:
            return [done, f"fewer than {FEWEST} images, or subjects, cannot show a difference between orders"]
        return [done, *(describe(row) for row in self.differences)]


def measure_faithfulness(curves: FaithfulnessCurves, predictions: Predictions) -> Faithfulness:
    """Return the areas of the curves, by the trapezoid rule, with intervals in which subjects are whole.

    Raises:
        RunError: an image of the curves is none of the predictions'.
    """
    rows = {image_id: row for row, image_id in enumerate(predictions.image_ids)}
    missing = [image_id for image_id in curves.image_ids if image_id not in rows]
    if missing:
        raise RunError(
            f"the deletion and insertion curves are of {len(missing):,} images that were not predicted, the first is "
            f"{missing[0]}: {MEASURE_AGAIN}"
        )
    groups = None
    if predictions.groups is not None:
        groups = predictions.groups[[rows[image_id] for image_id in curves.image_ids]]
    both = {DELETION: curves.deletion, INSERTION: curves.insertion}
    areas = {kind: area_under(scores, curves.shares) for kind, scores in both.items()}  # (n, O) each
    return Faithfulness(
        num_images=len(curves.image_ids),
        num_in_split=len(rows),
        num_groups=None if groups is None else len(set(groups)),
        num_draws=curves.num_draws,
        shares=tuple(curves.shares.tolist()),
        curves=tuple(
            _curve(kind, order, both[kind][:, place], areas[kind][:, place], groups=groups)
            for kind in both
            for place, order in enumerate(curves.orders)
        ),
        differences=tuple(
            _difference(kind, pair, areas[kind], curves.orders, groups=groups)
            for kind in both
            for pair in pairs_of(curves.orders)
        ),
    )


def area_under(scores: NDArray[np.floating[Any]], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under curves (..., S + 1) over shares (S + 1,), by the trapezoid rule, in float64."""
    heights = (scores[..., 1:].astype(np.float64) + scores[..., :-1]) / 2
    return np.asarray((heights * np.diff(shares)).sum(axis=-1))


def pairs_of(orders: Sequence[str]) -> list[tuple[str, str]]:
    """Return which orders are set beside which: votes beside both others, or rollout beside random without votes."""
    return [(VOTES, RANDOM), (VOTES, ROLLOUT)] if VOTES in orders else [(ROLLOUT, RANDOM)]


def describe(row: Difference) -> str:
    """Return what a difference shows, in a sentence."""
    first, second = _PHRASES[row.order], _PHRASES[row.versus]
    told = f"{row.kind}, {row.order} {MINUS} {row.versus}: {signed(row.difference)}"
    if row.shown == NOTHING:
        return f"{told}: no difference is shown between changing patches {first} and {second}"
    how = "faster" if row.shown == BETTER else "more slowly"
    return f"{told}: {_DOES[row.kind].format(first=first, how=how, second=second)}"


def signed(figure: Figure) -> str:
    """Return a difference of areas with its interval."""
    return f"{figure.value:+.3f} ({figure.low:+.3f} to {figure.high:+.3f})"


def _curve(
    kind: str, order: str, scores: NDArray[np.float32], areas: NDArray[np.float64], *, groups: Groups | None
) -> OrderCurve:
    means = [_mean(step, groups) for step in scores.astype(np.float64).T]
    value, low, high = (tuple(ends) for ends in zip(*means, strict=True))
    return OrderCurve(kind, order, _mean(areas, groups), value, low, high)


def _difference(
    kind: str, pair: tuple[str, str], areas: NDArray[np.float64], orders: Sequence[str], *, groups: Groups | None
) -> Difference:
    first, second = (areas[:, orders.index(order)] for order in pair)
    figure = _mean(first - second, groups)
    num_units = len(first) if groups is None else len(set(groups))
    shown = NOTHING
    if num_units >= FEWEST and not figure.low <= 0 <= figure.high:
        shown = BETTER if (figure.value < 0) == (kind == DELETION) else WORSE
    return Difference(kind, *pair, figure, shown)


def _mean(values: NDArray[np.float64], groups: Groups | None) -> Figure:
    return Figure(float(values.mean()), *mean_interval(values, groups=groups))
