"""The probes of one frozen backbone: four classifiers on its features, what was chosen for each, and as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from finevote.errors import RunError
from finevote.evaluation.figure import Figure
from finevote.evaluation.probes import KNN, LOGISTIC, ProbeName
from finevote.evaluation.shares import Groups, share
from finevote.files import atomic_write
from finevote.probe.features import KINDS, Features, FeatureSpace
from finevote.probe.logistic import PENALTIES, Linear, fit_logistic
from finevote.probe.neighbours import NUM_NEIGHBOURS, classify_by_neighbours, unit_parts

if TYPE_CHECKING:
    from pathlib import Path

FORMAT_VERSION = 1
_ADVICE = "start a new run with `finevote fit` and another --out"
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class FittedProbes:
    """Fitted on training features; `names` tell of each classifier what it reads and what was chosen for it.

    `bank` and `bank_labels` (n,) are the training images that neighbours are sought among, `linear` has a regression
    for each of `KINDS`. `accuracies` are those on the `num_validation` images that the choice was made on.
    """

    space: FeatureSpace
    num_classes: int
    names: tuple[ProbeName, ...]
    bank: Features
    bank_labels: Labels
    linear: Mapping[str, Linear]
    accuracies: tuple[Figure, ...]
    num_validation: int

    def classify(self, features: Features, *, device: str = "cpu") -> Labels:
        """Return the classes (4, m) that the probes say of images with these features, in the order of `names`."""
        found = []
        for name in self.names:
            if name.classifier == LOGISTIC:
                found.append(self.linear[name.kind].logits(features.joined(name.kind)).argmax(axis=1))
                continue
            classes = classify_by_neighbours(
                unit_parts(self.bank.parts(name.kind)),
                self.bank_labels,
                unit_parts(features.parts(name.kind)),
                num_neighbours=[int(name.chosen)],
                num_classes=self.num_classes,
                device=device,
            )
            found.append(classes[0])
        return np.stack(found).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return all but the arrays, ready for JSON."""
        rows = [
            {**name._asdict(), "top_1": found.value, "low": found.low, "high": found.high}
            for name, found in zip(self.names, self.accuracies, strict=True)
        ]
        return {
            "format_version": FORMAT_VERSION,
            "space": self.space.to_dict(),
            "num_classes": self.num_classes,
            "num_train": len(self.bank_labels),
            "num_validation": self.num_validation,
            "tried": {KNN: list(NUM_NEIGHBOURS), LOGISTIC: list(PENALTIES)},
            "rows": rows,
        }


def fit_probes(
    train: Features,
    train_labels: Labels,
    validation: Features,
    validation_labels: Labels,
    *,
    space: FeatureSpace,
    num_classes: int,
    groups: Groups | None = None,
    device: str = "cpu",
) -> FittedProbes:
    """Fit both classifiers on both kinds of features; choose k and the penalty by validation accuracy.

    Where several are equally often right, the smallest k and the strongest penalty are taken. `groups` are the subjects
    of the validation images, which the intervals of accuracies count; None where every image is by itself.
    """
    names, accuracies, linear = [], [], {}
    for kind in KINDS:
        by_k = classify_by_neighbours(
            unit_parts(train.parts(kind)),
            train_labels,
            unit_parts(validation.parts(kind)),
            num_neighbours=NUM_NEIGHBOURS,
            num_classes=num_classes,
            device=device,
        )
        place, is_right = _first_best(by_k, validation_labels)
        names.append(ProbeName(KNN, kind, KINDS[kind], NUM_NEIGHBOURS[place]))
        accuracies.append(Figure(*share(is_right, groups=groups)[:3]))
        regressions = fit_logistic(train.joined(kind), train_labels, num_classes=num_classes, device=device)
        joined = validation.joined(kind)
        said = np.stack([regression.logits(joined).argmax(axis=1) for regression in regressions])
        place, is_right = _first_best(said, validation_labels)
        names.append(ProbeName(LOGISTIC, kind, KINDS[kind], PENALTIES[place]))
        accuracies.append(Figure(*share(is_right, groups=groups)[:3]))
        linear[kind] = regressions[place]
    return FittedProbes(
        space, num_classes, tuple(names), train, train_labels, linear, tuple(accuracies), len(validation_labels)
    )


def save_probes(probes: FittedProbes, *, arrays: Path, description: Path) -> None:
    """Write the arrays as safetensors, then their description as JSON, whose presence says that both are there."""
    tensors = {
        "train.cls": probes.bank.cls,
        "train.patch_mean": probes.bank.patch_mean,
        "train.labels": probes.bank_labels,
    }
    for kind, linear in probes.linear.items():
        tensors |= {f"{kind}.weight": linear.weight, f"{kind}.bias": linear.bias}
    atomic_write(arrays, save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}))
    atomic_write(description, json.dumps(probes.to_dict(), indent=1, ensure_ascii=False) + "\n")


def load_probes(*, arrays: Path, description: Path) -> FittedProbes:
    """Return what `save_probes` wrote.

    Raises:
        RunError: a file is missing, broken or of another format.
    """
    try:
        values = json.loads(description.read_text(encoding="utf-8"))
        if (found := values.get("format_version")) != FORMAT_VERSION:
            raise RunError(f"{description} has format version {found}, this finevote reads {FORMAT_VERSION}: {_ADVICE}")
        tensors = load(arrays.read_bytes())
        return FittedProbes(
            space=FeatureSpace.from_dict(values["space"]),
            num_classes=values["num_classes"],
            names=tuple(ProbeName(**{name: row[name] for name in ProbeName._fields}) for row in values["rows"]),
            bank=Features(tensors["train.cls"], tensors["train.patch_mean"]),
            bank_labels=tensors["train.labels"],
            linear={kind: Linear(tensors[f"{kind}.weight"], tensors[f"{kind}.bias"]) for kind in KINDS},
            accuracies=tuple(Figure(row["top_1"], row["low"], row["high"]) for row in values["rows"]),
            num_validation=values["num_validation"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"cannot read the probes in {arrays} and {description.name} ({reason}): {_ADVICE}") from None


def _first_best(said: Labels, labels: Labels) -> tuple[int, NDArray[np.bool_]]:
    """Return which row of classes (K, m) is most often right, the first of equals, and which images (m,) it is."""
    is_right = said == labels
    place = int(is_right.sum(axis=1).argmax())
    return place, is_right[place]


def labels_of(records: Sequence[Any]) -> Labels:
    """Return the classes (n,) of records."""
    return np.array([record.label for record in records], np.int64)
