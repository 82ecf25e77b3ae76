"""Runs that can be compared: measured on the very same images, and put together where only their seeds differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finevote.bundle.manifest import read_manifest
from finevote.bundle.read import read_beside_model
from finevote.config import load_config
from finevote.data.items import list_some
from finevote.errors import ArgumentError, DataError, RunError
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.metrics import top_k_correct
from finevote.evaluation.rows import subject_names, take_rows
from finevote.measure.evaluate import predictions_of
from finevote.measure.opening import Openings, count_openings, open_split
from finevote.run_folder import RunFolder
from finevote.types import DataSource, Predictions, Preprocessing, Record

_SEEDS = ("training.seed", "name", "source", "hardware")  # what may differ between runs of one recipe


@dataclass(frozen=True)
class Measured:
    """A run with its predictions on the images of the comparison, in the order that all its runs share.

    `settings` are flat, name to value, with the keep rate of the bundle; `right` (n,) tells which images are named
    right, and `calibration` is that of the bundle, None where it has none.
    """

    path: Path
    settings: Mapping[str, Any]
    predictions: Predictions
    class_names: tuple[str, ...]
    setting: str
    right: np.ndarray
    calibration: Calibration | None = None

    @property
    def seed(self) -> int:
        """The seed that it was trained with."""
        return int(self.settings["training.seed"])

    @property
    def openings(self) -> Openings:
        """How often the test split was measured on with this run."""
        return count_openings(RunFolder(self.path))


@dataclass(frozen=True)
class Contestant:
    """One recipe, by its runs with different seeds."""

    name: str
    runs: tuple[Measured, ...]

    @property
    def right(self) -> np.ndarray:
        """Return (seeds, n), which images each run names right."""
        return np.stack([run.right for run in self.runs])


def load_measured(runs: Sequence[Path], *, split: str, data: str | Path | None = None) -> list[Measured]:
    """Return the runs with predictions on the same images; what has not been measured is measured now.

    Everything that can be told from the runs' own files is checked first, so that no test split is opened in vain.

    Raises:
        ArgumentError: a run is given twice, or none is.
        DataError: the runs are of different data, splits or labels.
        RunError: one is no finished run.
        As `evaluate` does, for what has not been measured.
    """
    if not runs:
        raise ArgumentError("there is nothing to compare: give at least one run")
    folders = [RunFolder.open(path) for path in runs]
    _refuse_twice(runs)
    for folder in folders:
        if not folder.bundle.exists():
            raise RunError(f"{folder.path} is not finished: go on with `finevote fit --resume {folder.path}`")
    for other in folders[1:]:
        _check_same_data(folders[0], other, split=split, is_moved=data is not None)
    measured = [_measure(folder, split=split, data=data) for folder in folders]
    return [measured[0], *(_align(run, measured[0], split=split) for run in measured[1:])]


def by_recipe(runs: Sequence[Measured]) -> list[Contestant]:
    """Put together the runs that differ in their seeds alone, named by the settings in which they differ from others.

    The order is that of each one's first run.
    """
    kept = [{name: value for name, value in run.settings.items() if name not in _SEEDS} for run in runs]
    keys = [json.dumps(values, sort_keys=True) for values in kept]
    together = [[run for run, other in zip(runs, keys, strict=True) if other == key] for key in dict.fromkeys(keys)]
    every_name = sorted({name for values in kept for name in values})
    varied = [name for name in every_name if len({json.dumps(values.get(name)) for values in kept}) > 1]
    return [Contestant(_name(group, varied), tuple(group)) for group in together]


def apart(runs: Sequence[Measured]) -> list[Contestant]:
    """Return every run as a contestant of its own, named by its folder."""
    return [Contestant(str(run.path), (run,)) for run in runs]


@dataclass(frozen=True)
class Album:
    """The images of the comparison, for pictures and groups; `view` is how the first run sees them."""

    source: DataSource
    records: Mapping[str, Record]
    view: Preprocessing

    def groups(self, image_ids: Sequence[str]) -> np.ndarray | None:
        """Return the subject of each image, as `subject_names` does."""
        return subject_names([self.records[image_id] for image_id in image_ids])


def open_album(run: Path, *, split: str, data: str | Path | None = None) -> Album | str:
    """Return the images of a run's split, or why they cannot be had."""
    folder = RunFolder.open(run)
    manifest = read_manifest(folder.bundle)
    try:
        source = open_split(folder, manifest, split=split, data=data)
    except DataError as error:
        return str(error)
    return Album(source, {record.image_id: record for record in source.splits[split]}, manifest.preprocessing)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as {"section.field": value}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        is_section = isinstance(value, Mapping) and name != "backbone_args"
        flat |= flatten(value, f"{prefix}{name}.") if is_section else {f"{prefix}{name}": value}
    return flat


def _refuse_twice(runs: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in runs]
    twice = [str(path) for number, path in enumerate(runs) if resolved[number] in resolved[:number]]
    if twice:
        raise ArgumentError(f"{', '.join(twice)} is given twice: a run can be compared with others only")


def _check_same_data(first: RunFolder, other: RunFolder, *, split: str, is_moved: bool) -> None:
    """Refuse what the run folders already tell to be of different images."""
    one, two = (folder.read_json(folder.data_json) for folder in (first, other))
    if one["class_names"] != two["class_names"]:
        raise DataError(
            f"{first.path} has {len(one['class_names'])} classes that are not the {len(two['class_names'])} of "
            f"{other.path}: compare runs on the same data"
        )
    if one["data"] != two["data"] and not is_moved:
        raise DataError(
            f"{first.path} was fitted to {one['data']}, {other.path} to {two['data']}: their figures cannot be "
            "compared, unless these are the same images and --data says where they are now"
        )
    if one["protocol"] != two["protocol"]:
        raise DataError(
            f"{first.path} has the protocol {one['protocol']}, {other.path} {two['protocol']}: their splits are not "
            "the same images, so their figures cannot be compared"
        )
    if split == "val":
        splits = [folder.read_json(folder.split_json)["splits"].get("val", []) for folder in (first, other)]
        _refuse_other_images(splits[0], splits[1], first=first.path, other=other.path, split=split)


def _refuse_other_images(ids: Sequence[str], other_ids: Sequence[str], *, first: Path, other: Path, split: str) -> None:
    missing = sorted(set(ids) ^ set(other_ids))
    if not missing:
        return
    advice = "split alike with data.validation_seed, or compare on --split test" if split == "val" else "compare others"
    raise DataError(
        f"{first} and {other} have different {split} splits ({len(ids):,} and {len(other_ids):,} images; only one has "
        f"{list_some(missing, noun='image')}), so their figures cannot be compared: {advice}"
    )


def _measure(folder: RunFolder, *, split: str, data: str | Path | None) -> Measured:
    predictions, class_names = predictions_of(folder.path, split=split, data=data)
    settings = flatten(load_config(folder.config_yaml).model_dump(mode="json"))
    manifest, calibration = read_beside_model(folder.bundle)
    return Measured(
        path=folder.path,
        settings={**settings, "model.voting.keep_rate": manifest.keep_rate},  # tune-speed sets it
        predictions=predictions,
        class_names=class_names,
        setting=folder.read_json(folder.data_json)["setting"],
        right=top_k_correct(predictions.logits, predictions.labels, k=1),
        calibration=calibration,
    )


def _align(run: Measured, first: Measured, *, split: str) -> Measured:
    """Return the run with its rows in the order of `first`; refuse other images, labels or classes."""
    ids, wanted = run.predictions.image_ids, first.predictions.image_ids
    _refuse_other_images(wanted, ids, first=first.path, other=run.path, split=split)
    row = {image_id: number for number, image_id in enumerate(ids)}
    order = np.array([row[image_id] for image_id in wanted], np.int64)
    predictions = take_rows(run.predictions, order)
    num_relabelled = int((predictions.labels != first.predictions.labels).sum())
    if run.class_names != first.class_names or num_relabelled:
        raise DataError(
            f"{run.path} was measured with other labels than {first.path} ({num_relabelled:,} images differ): measure "
            f"both again with `finevote evaluate RUN --split {split}`"
        )
    values = {**vars(run), "predictions": predictions, "right": run.right[order]}
    return Measured(**values)


def _name(group: Sequence[Measured], varied: Sequence[str]) -> str:
    if len(group) == 1:
        return str(group[0].path)
    values = (f"{name}={json.dumps(group[0].settings.get(name))}" for name in varied)
    return ", ".join(values) or str(group[0].settings["name"])
