"""What a training says of itself: rows of metrics.jsonl, lines on the console, and the warning of a collapse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from finevote.errors import StorageError
from finevote.evaluation.intervals import wilson_interval
from finevote.files import atomic_write

COLLAPSE_ADVICE = (
    "the embeddings have collapsed to a point: the triplet loss stays at its margin and pulls nothing apart; "
    "stop, then lower optim.lr or loss.triplet_weight, raise loss.triplet_warmup_epochs, or set "
    "loss.triplet_margin=soft"
)


class MetricsLog:
    """metrics.jsonl: one row an epoch ("kind": "epoch"), and some of the steps ("kind": "step").

    Every row has "epoch" (from 1) and "step" (optimiser steps done since the start); the means of an epoch and the
    figures of a step have the same names: "loss", "loss_part", "loss_complement", "loss_triplet", "train_top1",
    "spread", "gradient_norm", "lr_min", "lr_max", "images_per_s", "budget"; epochs also have "val_top1", "val_loss",
    "val_num_images" where they were validated, and "seconds". A figure that is not finite, as a gradient norm that
    overflows in fp16, is null: JSON has no infinity.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows; a last line that a crash cut short is left out."""
        if not self.path.exists():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row of plain values.

        Raises:
            StorageError: the disk is full or cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({name: _finite_or_none(value) for name, value in row.items()}) + "\n")
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}: make room, then --resume the run"
            ) from error

    def keep_until(self, *, step: int, num_epochs: int) -> None:
        """Drop the rows after a checkpoint, which will be written again; an epoch's row comes after its last step."""
        if not self.path.exists():
            return
        kept = [
            row for row in self.rows() if row["step"] <= step and (row["kind"] != "epoch" or row["epoch"] <= num_epochs)
        ]
        atomic_write(self.path, "".join(json.dumps(row) + "\n" for row in kept))


class RunningMeans:
    """Means of figures over the steps of an epoch; `sums` and `num_steps` are its whole state."""

    def __init__(self, sums: Mapping[str, float] | None = None, num_steps: int = 0) -> None:
        self.sums = dict(sums or {})
        self.num_steps = num_steps

    def add(self, figures: Mapping[str, float]) -> None:
        """Count the figures of one step."""
        self.num_steps += 1
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Return the mean of every figure; empty before any step."""
        return {name: total / self.num_steps for name, total in self.sums.items()}


class CollapseWatch:
    """Sees when all embeddings have fallen together.

    Then every distance is 0 and the triplet loss stays at its margin (at ln 2 for the soft one), with next to no
    gradient to leave by.

    Args:
        margin: of the triplet loss.
        patience: steps in a row before it is called a collapse.
    """

    def __init__(self, *, margin: float | Literal["soft"], patience: int = 20) -> None:
        self.plateau = math.log(2) if margin == "soft" else margin
        self.patience = patience
        self._num_steps = 0

    def see(self, *, triplet: float, spread: float) -> bool:
        """Take one step's triplet loss and spread of embeddings; True once, when a collapse has become certain."""
        at_plateau = abs(triplet - self.plateau) <= 0.02 * self.plateau
        self._num_steps = self._num_steps + 1 if at_plateau and spread < 0.02 else 0
        return self._num_steps == self.patience


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_losses(figures: Mapping[str, float]) -> str:
    """Return `loss 1.23 (part 1.10, complement 1.30, triplet 0.90)`."""
    terms = [f"{name.removeprefix('loss_')} {value:.3f}" for name, value in figures.items() if name.startswith("loss_")]
    return f"loss {figures['loss']:.3f}" + (f" ({', '.join(terms)})" if len(terms) > 1 else "")


def describe_best(row: Mapping[str, Any], *, num_epochs: int) -> str:
    """Return which epoch is kept, with the interval of its accuracy where it was validated."""
    found = f"epoch {row['epoch']} of {num_epochs}"
    if "val_top1" not in row:
        return found
    low, high = wilson_interval(row["val_top1"] * row["val_num_images"], row["val_num_images"])
    return f"best {found}: validation top-1 {row['val_top1']:.1%} (95% Wilson interval {low:.1%} to {high:.1%})"


def describe_epoch(row: Mapping[str, Any], *, num_epochs: int, is_best: bool) -> str:
    """Return the line that stands for an epoch."""
    parts = [f"epoch {row['epoch']}/{num_epochs}"]
    if "loss" in row:
        parts += [describe_losses(row), f"train top-1 {row['train_top1']:.1%}"]
    if "val_top1" in row:
        parts.append(f"val top-1 {row['val_top1']:.1%}{' (best)' if is_best else ''}")
    parts += [f"lr {row['lr_max']:.2g}", f"{row['images_per_s']:.1f} images/s"]
    return ", ".join(parts)
