"""A fine-tuned model beside what its backbone says when it is left as it was: one row for each probe, paired tests."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.errors import RunError
from finevote.evaluation.figure import Figure, share_of
from finevote.evaluation.metrics import top_k_correct
from finevote.evaluation.paired import holm, paired_test
from finevote.evaluation.predictions import MEASURE_AGAIN, read_arrays
from finevote.files import atomic_write
from finevote.types import Predictions

KNN, LOGISTIC = "kNN", "logistic"
_NOT_ANSWERS = (OSError, ValueError, LookupError, TypeError)
CHOSEN_ON_VALIDATION = (
    "k and the penalty λ of the probes were chosen on the same validation images, which flatters them a little"
)


class ProbeName(NamedTuple):
    """A classifier on frozen features, with the k or the penalty chosen for it; `kind` is short for the features."""

    classifier: str
    kind: str
    features: str
    chosen: float

    def describe(self) -> str:
        """Return it in a few words: `kNN, CLS, k=20`."""
        what = "k=" if self.classifier == KNN else "λ="
        return f"{self.classifier}, {self.features}, {what}{self.chosen:g}"


@dataclass(frozen=True)
class ProbeAnswers:
    """The classes (R, n) that each of R probes says of n images; `backbone` is what was frozen."""

    backbone: str
    num_train: int
    names: tuple[ProbeName, ...]
    image_ids: tuple[str, ...]
    classes: NDArray[np.int64]


class ProbeRow(NamedTuple):
    """One probe: accuracy with its interval, and the images that it or the model alone names right.

    `p_value` is that of `paired_test`, that both are equally often right; `p_value_holm` is adjusted for all probes.
    """

    classifier: str
    features: str
    chosen: float
    top_1: float
    low: float
    high: float
    only_probe: int
    only_model: int
    p_value: float
    p_value_holm: float


@dataclass(frozen=True)
class Probes:
    """The section of a report: the probes on its split, beside the model, of which `model` has accuracy and interval.

    `was_chosen_here` is true where it is the validation split.
    """

    backbone: str
    num_train: int
    was_chosen_here: bool
    model: Figure
    names: tuple[ProbeName, ...]
    rows: tuple[ProbeRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON; shares are fractions."""
        return {
            "backbone": self.backbone,
            "num_train": self.num_train,
            "was_chosen_here": self.was_chosen_here,
            "rows": [row._asdict() for row in self.rows],
        }

    def table(self) -> Table:
        """Return the rows as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column(f"frozen {self.backbone}", overflow="fold")
        for heading in ("accuracy", "95% interval", "alone right", "p (Holm)"):
            table.add_column(heading, justify="right", overflow="fold")
        for name, row in zip(self.names, self.rows, strict=True):
            table.add_row(
                name.describe(),
                f"{row.top_1:.1%}",
                f"{row.low * 100:.1f} to {row.high * 100:.1f}%",
                f"{row.only_probe:,} : {row.only_model:,}",
                f"{row.p_value_holm:.2g}",
            )
        value, low, high = self.model
        table.add_row("the trained model", f"{value:.1%}", f"{low * 100:.1f} to {high * 100:.1f}%")
        return table

    def notes(self) -> list[str]:
        """Return what is to be known of the rows."""
        alone = "alone right: images that the probe, and the model, names right and the other does not"
        return [alone, CHOSEN_ON_VALIDATION] if self.was_chosen_here else [alone]


def compare_probes(predictions: Predictions, answers: ProbeAnswers, *, was_chosen_here: bool) -> Probes:
    """Return the probes beside a model's predictions of the same images.

    Raises:
        RunError: the images are others.
    """
    rows = {image_id: row for row, image_id in enumerate(answers.image_ids)}
    missing = [image_id for image_id in predictions.image_ids if image_id not in rows]
    if missing:
        raise RunError(
            f"the probes have no answer for {len(missing):,} of {len(predictions.image_ids):,} images, the first is "
            f"{missing[0]}: {MEASURE_AGAIN}"
        )
    classes = answers.classes[:, [rows[image_id] for image_id in predictions.image_ids]]
    model_right = top_k_correct(predictions.logits, predictions.labels, k=1)
    tests = [paired_test(model_right, said == predictions.labels, groups=predictions.groups) for said in classes]
    adjusted = holm([test.p_value for test in tests])
    found = [
        ProbeRow(
            name.classifier,
            name.features,
            name.chosen,
            *share_of(said == predictions.labels, predictions),
            test.only_second,
            test.only_first,
            test.p_value,
            p_value,
        )
        for name, said, test, p_value in zip(answers.names, classes, tests, adjusted, strict=True)
    ]
    model = share_of(model_right, predictions)
    return Probes(answers.backbone, answers.num_train, was_chosen_here, model, answers.names, tuple(found))


def accuracy_table(backbone: str, names: Sequence[ProbeName], accuracies: Sequence[Figure]) -> Table:
    """Return the accuracies of probes by themselves as `rich` prints them."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column(f"frozen {backbone}", overflow="fold")
    for heading in ("accuracy", "95% interval"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, (value, low, high) in zip(names, accuracies, strict=True):
        table.add_row(name.describe(), f"{value:.1%}", f"{low * 100:.1f} to {high * 100:.1f}%")
    return table


def save_answers(path: Path, answers: ProbeAnswers) -> None:
    """Write the answers as a .npz of plain arrays; the file appears whole or not at all."""
    told = {"backbone": answers.backbone, "num_train": answers.num_train}
    described = json.dumps({**told, "names": [name._asdict() for name in answers.names]})
    content = io.BytesIO()
    np.savez_compressed(
        content,
        described=np.array(described),
        image_ids=np.array(answers.image_ids, np.str_),
        classes=answers.classes,
    )
    atomic_write(path, content.getvalue())


def load_answers(path: Path, *, advice: str = MEASURE_AGAIN) -> ProbeAnswers:
    """Return what `save_answers` wrote; `advice` ends an error.

    Raises:
        RunError: the file is missing, cut, or not ours.
    """
    try:
        arrays = read_arrays(path)
        described = json.loads(str(arrays["described"]))
        return ProbeAnswers(
            described["backbone"],
            described["num_train"],
            tuple(ProbeName(**name) for name in described["names"]),
            tuple(arrays["image_ids"].tolist()),
            arrays["classes"],
        )
    except _NOT_ANSWERS as error:
        raise RunError(f"cannot read the probes' answers {path} ({error}): {advice}") from None
