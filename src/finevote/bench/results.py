"""Figures as flat samples, kept on disk as they come: JSON for programs, Markdown for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from finevote.bench.plan import Case
from finevote.bench.tables import markdown
from finevote.files import atomic_write

JSON_NAME, TABLE_NAME, PLOT_NAME = "bench.json", "bench.md", "bench.png"


@dataclass(frozen=True)
class Sample:
    """One figure.

    Attributes:
        what: a value of `What`.
        quantity: "time", "time ratio", "peak memory", ...; a ratio is to the contender `plain` in the same rounds.
        contender: whose.
        value: None where it could not be measured; `note` says why.
        unit: "s", "MiB", "" for ratios and shares, ...
        part: of what is taken apart, such as the forward pass.
        low, high: the quartiles over the rounds.
        raw: the rounds.
        num_tokens: N of the trunk.
        backbone, size (px), batch, num_classes, action, precision, mode, device: the case.
    """

    what: str
    quantity: str
    contender: str
    value: float | None
    unit: str
    part: str = ""
    low: float | None = None
    high: float | None = None
    raw: tuple[float, ...] = ()
    note: str = ""
    num_tokens: int | None = None
    backbone: str = ""
    size: int | None = None
    batch: int | None = None
    num_classes: int | None = None
    action: str = ""
    precision: str = ""
    mode: str = ""
    device: str = ""

    def of(self, case: Case, *, num_tokens: int | None = None) -> Sample:
        """Return the sample with the fields of its case."""
        return replace(self, num_tokens=num_tokens, **case.describe())


@dataclass
class Results:
    """The samples so far, in a folder that holds all of them after each `add`.

    Attributes:
        folder: gets `bench.json` and `bench.md`.
        about: machine, versions, commit and plan.
    """

    folder: Path
    about: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)

    def add(self, *samples: Sample) -> None:
        """Take samples in and write everything anew.

        Raises:
            StorageError: the folder cannot be written.
        """
        self.samples += samples
        content = {**self.about, "samples": [asdict(sample) for sample in self.samples]}
        atomic_write(self.folder / JSON_NAME, json.dumps(content, indent=1) + "\n")
        atomic_write(self.folder / TABLE_NAME, markdown(self.about, self.samples))
