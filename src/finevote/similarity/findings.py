"""What was found of a run's layers, its budget and its votes: as values, as JSON, in a sentence each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finevote.evaluation.figure import Figure, percent
from finevote.evaluation.means import mean_interval
from finevote.evaluation.shares import Groups
from finevote.similarity.features import VoteArrays

SCHEMA_VERSION = 1
KINDS = {"cls": "CLS", "patches": "Mean patch"}
ESTIMATES = {"minibatch": "unbiased", "standard": "standard"}
Matrix = NDArray[np.float64]
_FEWEST_FOR_INTERVAL = 2


class BudgetStep(NamedTuple):
    """Tokens that each layer forwarded, (S,), when so many epochs were done."""

    epochs: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class VoteFindings:
    """Which layers and heads carry the votes; shares in [0, 1], with 95% intervals over images.

    `offered` (S,) is each layer's share of the selected tokens, `key` (S,) its share of the key tokens. `heads` (S, H)
    is the share of each head's votes that fall on patches of key tokens, which cover `area` of the grid: what votes at
    random would come to.
    """

    offered: tuple[float, ...]
    key: tuple[Figure, ...]
    heads: Matrix
    area: float
    has_second_vote: bool

    @property
    def best_head(self) -> tuple[int, int]:
        """Layer and head, from 0, whose votes agree most with the outcome."""
        layer, head = np.unravel_index(int(self.heads.argmax()), self.heads.shape)
        return int(layer), int(head)

    def summary(self) -> str:
        """Return which layer the key tokens come from, in a sentence."""
        if not self.has_second_vote:
            return "There is no second vote: all selected tokens are key tokens"
        top = int(np.argmax([figure.value for figure in self.key]))
        offered = f"{self.offered[top]:.0%} of those offered"
        return f"Layer {top + 1} gives {self.key[top].value:.0%} of the key tokens, {offered}"

    def head_summary(self) -> str:
        """Return which head agrees most with the outcome, in a sentence."""
        layer, head = self.best_head
        return (
            f"layer {layer + 1} head {head + 1} agrees most with the outcome: {self.heads[layer, head]:.0%} of its "
            f"votes fall on patches of key tokens, {self.area:.0%} of the area"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "offered": list(self.offered),
            "key": [figure._asdict() for figure in self.key],
            "heads": self.heads.tolist(),
            "area": self.area,
            "has_second_vote": self.has_second_vote,
        }


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Everything that was found.

    `cka` maps a kind of features and an estimate to a map (S, S) over the layers named; NaN where a layer says the same
    of every image. `budget` is empty, and `votes` None, for the plain backbone; `moves_by` is what moves the budget.
    """

    run: str
    data: str
    split: str
    num_images: int
    weights_sha256: str
    keep_rate: float
    batch_size: int
    seed: int
    layers: tuple[str, ...]
    cka: Mapping[str, Mapping[str, Matrix]]
    budget: tuple[BudgetStep, ...] = ()
    moves_by: str | None = None
    votes: VoteFindings | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers ready for JSON; null where a layer says the same of every image."""
        maps = {
            kind: {estimate: _finite_or_none(values) for estimate, values in found.items()}
            for kind, found in self.cka.items()
        }
        names = ("run", "data", "split", "num_images", "weights_sha256", "keep_rate", "batch_size", "seed", "layers")
        return {
            "schema_version": SCHEMA_VERSION,
            **{name: getattr(self, name) for name in names},
            "cka": maps,
            "budget": [step._asdict() for step in self.budget],
            "moves_by": self.moves_by,
            "votes": self.votes and self.votes.to_dict(),
            "notes": self.notes(),
        }

    def cka_summary(self) -> str:
        """Return between which neighbours CLS changes most, in a sentence."""
        values = self.cka["cls"]["minibatch"].diagonal(1)
        if not np.isfinite(values).any():
            return "There are no two layers to compare" if not len(values) else "The layers tell no images apart"
        step = int(np.nanargmin(values))
        if len(values) == 1:
            return f"CLS after {self.layers[0]} and {self.layers[1]}: CKA {values[0]:.2f}"
        return f"CLS changes most from {self.layers[step]} to {self.layers[step + 1]}: CKA {values[step]:.2f}"

    def budget_summary(self) -> str:
        """Return how the budget moved, in a sentence."""
        if not self.budget:
            return "No record of the budget over training is there"
        first, last = np.array(self.budget[0].counts), np.array(self.budget[-1].counts)
        change = last - first
        if not change.any():
            reason = "its setting is off" if self.moves_by == "off" else "its layers stayed as they began"
            return f"The budget did not move: {reason}"
        up = int(change.argmax())
        return f"Layer {up + 1} gains most of the budget: {first[up]} to {last[up]} of {first.sum()} tokens"

    def notes(self) -> list[str]:
        """Return what is to be known of the figures, a sentence each."""
        if self.votes is None:
            return ["a plain backbone has no votes and no budget: only its layers are compared"]
        notes = []
        if not self.votes.has_second_vote:
            notes.append("without a refinement stage there is no second vote: every selected token is a key token")
        if self.keep_rate < 1:
            notes.append(
                f"layers are compared with every patch in the trunk; votes are those at keep rate {self.keep_rate:g}"
            )
        return notes

    def table(self) -> RenderableType:
        """Return the figures as `rich` prints them: each layer beside the one before it, and its part in the votes."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        headings = ["", "CLS", "mean patch"]
        headings += [] if self.votes is None else ["offered", "key tokens (95%)", "best head"]
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="right" if number else "left", overflow="fold")
        for number, name in enumerate(self.layers):
            cells = [_to_before(self.cka[kind]["minibatch"], number) for kind in KINDS]
            if self.votes is not None and number < len(self.votes.key):
                best = int(self.votes.heads[number].argmax())
                share = self.votes.heads[number, best]
                cells += [f"{self.votes.offered[number]:.1%}", percent(self.votes.key[number])]
                cells.append(f"{best + 1} ({share:.0%})")
            table.add_row(name, *cells)
        about = "CKA to the layer before, unbiased over minibatches"
        about += "" if self.votes is None else "; best head: the share of its votes on patches of key tokens"
        sentences = [self.cka_summary()]
        if self.votes is not None:
            heads = self.votes.head_summary()
            sentences += [self.budget_summary(), self.votes.summary(), f"{heads[:1].upper()}{heads[1:]}"]
        title = f"{self.run}: {self.num_images:,} images of the {self.split} split of {self.data}"
        parts: list[RenderableType] = [Text(title, style="bold"), "", table, Text(f"\n{about}"), ""]
        return Group(*parts, *(Text(sentence) for sentence in [*sentences, *self.notes()]))


def summarize_votes(votes: VoteArrays, *, groups: Groups | None = None) -> VoteFindings:
    """Return means over images, with 95% intervals of the layers' shares; groups are taken whole."""
    total = sum(votes.budget)
    return VoteFindings(
        offered=tuple(count / total for count in votes.budget),
        key=tuple(_mean(shares, groups) for shares in votes.key_shares.T),
        heads=votes.head_shares.astype(np.float64).mean(axis=0),
        area=float(votes.key_areas.mean(dtype=np.float64)),
        has_second_vote=votes.has_second_vote,
    )


def budget_steps(rows: Sequence[Mapping[str, Any]]) -> tuple[BudgetStep, ...]:
    """Return the budget over training from the rows of metrics.jsonl, in their order; rows without one are left out.

    A row of a step lies between epochs as its number does among the steps of an epoch.
    """
    per_epoch = next((row["step"] / row["epoch"] for row in rows if row["kind"] == "epoch" and row["step"]), None)
    return tuple(
        BudgetStep(row["step"] / per_epoch if per_epoch else float(row["epoch"]), tuple(row["budget"]))
        for row in rows
        if row.get("budget")
    )


def _mean(values: NDArray[np.floating[Any]], groups: Groups | None) -> Figure:
    mean = float(values.mean(dtype=np.float64))
    if len(values) < _FEWEST_FOR_INTERVAL:
        return Figure(mean, 0.0, 1.0)
    low, high = mean_interval(values, groups=groups)
    return Figure(mean, max(low, 0.0), min(high, 1.0))


def _to_before(values: Matrix, number: int) -> str:
    if not number:
        return ""
    found = values[number - 1, number]
    return f"{found:.3f}" if np.isfinite(found) else "-"


def _finite_or_none(values: Matrix) -> list[list[float | None]]:
    return [[float(value) if np.isfinite(value) else None for value in row] for row in values]
