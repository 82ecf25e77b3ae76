"""All that a run's files tell of one split, read once; what is not there is None or empty, and nothing fails for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from finevote.bundle.manifest import Manifest
from finevote.bundle.read import read_beside_model
from finevote.config import Config, load_config
from finevote.errors import FinevoteError, RunError
from finevote.evaluation.calibrator import Calibration, told_probabilities
from finevote.evaluation.metrics import Rates
from finevote.measure.evaluate import predictions_of
from finevote.measure.opening import open_split
from finevote.predictor import find_bundle
from finevote.report.photographs import Shelf
from finevote.run_folder import RunFolder
from finevote.training.telemetry import MetricsLog
from finevote.types import Predictions

_logger = logging.getLogger(__name__)
_STUDIES = ("ablation.json", "sweep.json")
_NEEDED = ("split", "num_images", "num_classes", "top_1", "macro", "per_class", "confused")


@dataclass(frozen=True)
class Material:
    """A measured run.

    `report` is the split's report.json, `data` the run's data.json. `shelf` has the photographs, and where that is None
    `no_pictures` says why. `epochs` are the rows of metrics.jsonl that stand for an epoch. `study` is the ablation or
    sweep that the run is of, None where none is known.
    """

    folder: RunFolder
    split: str
    report: Mapping[str, Any]
    predictions: Predictions
    class_names: tuple[str, ...]
    manifest: Manifest
    calibration: Calibration | None
    config: Config
    data: Mapping[str, Any]
    shelf: Shelf | None = None
    no_pictures: str = ""
    epochs: Sequence[Mapping[str, Any]] = ()
    study: Mapping[str, Any] | None = None

    @cached_property
    def probabilities(self) -> Rates:
        """Return (n, C), as they are told to people."""
        return told_probabilities(self.predictions.logits, self.calibration)

    @property
    def label(self) -> str:
        """Return what the run is called: its folder, with the one above it where it is one seed of several."""
        path = self.folder.path.resolve()
        return f"{path.parent.name}, {path.name.replace('-', ' ')}" if path.name.startswith("seed-") else path.name

    @property
    def has_votes(self) -> bool:
        """Whether there are final votes to draw."""
        return self.predictions.final_votes is not None


def gather(run: Path | str, *, split: str, data: str | Path | None = None, ablation: Path | None = None) -> Material:
    """Return what is known of a run's split, which is measured first if it has not been.

    Args:
        run: a folder that `finevote fit` has finished.
        split: "val" or "test", of which every measurement is entered in the ledger.
        data: where the data set lies now, if it has moved.
        ablation: the folder of an ablation or sweep to show beside the run; None: the one that it lies in, if it does.

    Raises:
        DataError: the images are not at `data`.
        RunError: `run` is no run, its report cannot be read, or `ablation` holds no ablation or sweep.
        As `evaluate` does, for what has not been measured.
    """
    predictions, class_names = predictions_of(run, split=split, data=data)
    folder = RunFolder.open(Path(run))
    manifest, calibration = read_beside_model(find_bundle(folder.path))
    if calibration is not None and calibration.keep_rate != manifest.keep_rate:
        calibration = None
    shelf, problem = _open_shelf(folder, manifest, split=split, data=data)
    return Material(
        folder=folder,
        split=split,
        report=_read_report(folder, split),
        predictions=predictions,
        class_names=class_names,
        manifest=manifest,
        calibration=calibration,
        config=load_config(folder.config_yaml),
        data=folder.read_json(folder.data_json),
        shelf=shelf,
        no_pictures=problem,
        epochs=read_epochs(folder),
        study=_find_study(folder.path) if ablation is None else _read_study_in(ablation),
    )


def read_epochs(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl that stand for an epoch; none where it cannot be read."""
    try:
        rows = MetricsLog(folder.metrics_jsonl).rows()
        return [row for row in rows if isinstance(row, dict) and row.get("kind") == "epoch" and "epoch" in row]
    except (OSError, UnicodeDecodeError):
        return []


def _read_report(folder: RunFolder, split: str) -> dict[str, Any]:
    path = folder.evaluation(split).report_json
    advice = f"measure it again: finevote evaluate {folder.path} --split {split}"
    report = folder.read_json(path, advice=advice)
    if missing := [name for name in _NEEDED if name not in report]:
        raise RunError(f"{path} is not a report of this finevote: it has no {', '.join(missing)}; {advice}")
    return report


def _open_shelf(
    folder: RunFolder, manifest: Manifest, *, split: str, data: str | Path | None
) -> tuple[Shelf | None, str]:
    try:
        source = open_split(folder, manifest, split=split, data=data)
    except (FinevoteError, OSError) as error:
        if data is not None:
            raise
        _logger.warning("the report has no photographs: %s", error)
        return None, str(error)
    records = {record.image_id: record for record in source.splits[split]}
    return Shelf(source, records, manifest.preprocessing), ""


def _find_study(run: Path) -> dict[str, Any] | None:
    """Return the ablation or sweep two folders above the run, `STUDY/VARIANT/seed-N`, if the run is one of its own."""
    found = _read_study(run.resolve().parent.parent)
    return found if found is not None and place_in(found, run) is not None else None


def place_in(study: Mapping[str, Any], run: Path) -> int | None:
    """Return the number of the variant that a run is of; a study that was moved is known by the ends of its paths."""
    ending = run.resolve().parts[-2:]
    for number, standing in enumerate(study["standings"]):
        if any(Path(path).parts[-2:] == ending for path in standing["runs"]):
            return number
    return None


def _read_study_in(folder: Path) -> dict[str, Any]:
    found = _read_study(folder)
    if found is None:
        raise RunError(f"{folder} has no {' or '.join(_STUDIES)} that can be read: give a folder of `finevote ablate`")
    return found


def _read_study(folder: Path) -> dict[str, Any] | None:
    for name in _STUDIES:
        try:
            values = json.loads((folder / name).read_bytes())
            standings, duels = values["standings"], values["duels"]
            if all({"name", "runs", "accuracy", "low", "high"} <= row.keys() for row in standings):
                return {**values, "standings": standings, "duels": duels, "stem": name.removesuffix(".json")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return None


def pairs_of(material: Material) -> list[tuple[int, int]]:
    """Return the confused pairs of the report as numbers of classes (true, predicted), commonest first."""
    number = {name: label for label, name in enumerate(material.class_names)}
    rows = material.report["confused"]
    return [
        (number[row["true_class"]], number[row["predicted_class"]])
        for row in rows
        if row["true_class"] in number and row["predicted_class"] in number
    ]


def taken_for(material: Material) -> list[tuple[str, int] | None]:
    """Return for each class the one that its images are most often taken for, and how many; None where none is."""
    labels, said = material.predictions.labels, material.predictions.logits.argmax(axis=1)
    wrong = np.flatnonzero(labels != said)
    pairs, counts = np.unique(np.stack([labels[wrong], said[wrong]]), axis=1, return_counts=True)
    found: dict[int, tuple[str, int]] = {}
    for (label, other), number in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        if label not in found or number > found[label][1]:
            found[label] = material.class_names[other], number
    return [found.get(label) for label in range(len(material.class_names))]
