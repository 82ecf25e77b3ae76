"""`finevote add-class`: classes added to a finished run from folders of photographs, and taken back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.bundle.additions import load_added_names, load_additions, record_addition, remove_last_addition
from finevote.bundle.manifest import read_manifest
from finevote.bundle.read import Bundle
from finevote.calibrating import IMAGES_FOR_MEAN
from finevote.data.images import IMAGE_SUFFIXES, check_images, read_record
from finevote.data.items import list_folder, list_some, plain_name
from finevote.data.listing import list_images
from finevote.data.subset import some_of_each_class
from finevote.errors import ArgumentError, BundleError, DataError
from finevote.evaluation.added_figures import AddedFigures, measure_added
from finevote.evaluation.adding import Old, fit_addition, old_logits_across
from finevote.evaluation.addition import Addition, Values, extended_logits, own_extended_logits
from finevote.evaluation.metrics import Rates
from finevote.evaluation.predictions import load_predictions
from finevote.evaluation.rows import take_rows
from finevote.evaluation.unknown import class_means
from finevote.files import atomic_write
from finevote.measure.evaluate import predictions_of
from finevote.measure.opening import held_out_names, open_split
from finevote.measure.saved import measure_again
from finevote.predictor import Predictor, find_bundle
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import DataSource, Predictions, Record

_SPLIT = "added"  # the name of the split that the photographs are read as


@dataclass(frozen=True)
class Added:
    """What was added: the classes, how the run fares with them, and what could not be read ({path: reason})."""

    addition: Addition
    figures: AddedFigures
    unreadable: Mapping[str, str]

    @property
    def alone(self) -> tuple[str, ...]:
        """The classes of a single photograph."""
        counts = np.bincount(self.addition.labels).tolist()
        return tuple(name for name, count in zip(self.addition.class_names, counts, strict=True) if count == 1)


class TakenBack(NamedTuple):
    """The classes that were taken back (none where their file was damaged), and those that are still added."""

    class_names: tuple[str, ...]
    left: tuple[str, ...]


def add_classes(
    run: Path | str, folder: Path | str, *, data: str | Path | None = None, skip_bad: bool = False
) -> Added:
    """Add classes to a run's bundle from photographs, without training; what is trained stays as it is.

    Each sub-folder of `folder` with images at any depth is a class of its name; without sub-folders the folder is one
    class. What the old classes lose is measured on validation images, which are predicted first where that has not been
    done; the test split is never opened.

    Args:
        run: a folder that `finevote fit` has finished, with validation.
        folder: of the photographs.
        data: where the run's data set lies now, if it has moved.
        skip_bad: leave out images that cannot be read.

    Raises:
        ArgumentError: a class is there already.
        BundleError: the bundle is missing or not as it was written.
        DataError: there are no photographs, some cannot be read, or the run's validation images are missing.
        RunError: `run` is no run.
        StorageError: the bundle cannot be written.
    """
    opened = RunFolder.open(Path(run))
    place = find_bundle(opened.path)
    predictor = Predictor.load(opened.path, device="auto")
    photographs = open_photographs(Path(folder))
    _check_names(photographs.class_names, predictor.bundle)
    photographs, unreadable = _readable(photographs, skip_bad=skip_bad)
    old = _look_at_old(opened, predictor, data=data)
    records = photographs.splits[_SPLIT]
    with Meter("new photographs", total=len(records)) as meter:
        new = predictor.predict_records(photographs, _SPLIT, advance=meter.advance)
    paths = [None if record.path is None else str(record.path.absolute()) for record in records]
    addition = fit_addition(photographs.class_names, new, paths, old)
    num_before = len(predictor.class_names)
    figures = measure_added(
        old.images,
        old_logits_across(photographs.class_names, new, old),
        own_extended_logits(addition, old.earlier),
        num_before + new.labels,
        class_names=(*predictor.class_names, *addition.class_names),
        num_added=len(addition.class_names),
        split="val",
        is_left_out=True,
        is_across=True,
    )
    addition = replace(addition, details=_details(figures, photographs))
    record_addition(place, addition)
    return Added(addition, figures, unreadable)


def measure_extended(run: Path | str, *, split: str = "val", data: str | Path | None = None) -> AddedFigures:
    """Measure a run with all classes that were added to it, on images of a split that made none of them.

    The old classes by the split's images; the new ones by the split's images of classes held out of training, where an
    added class has the name of one. Predictions are those that `evaluate` keeps, made first where it has not; writes
    `added.json` beside them.

    Raises:
        ArgumentError: no classes were added, or there is no such split.
        BundleError, DataError, RunError, StorageError: as `evaluate`.
    """
    opened = RunFolder.open(Path(run))
    place = find_bundle(opened.path)
    manifest = read_manifest(place)
    additions = load_additions(place, manifest)
    if not additions:
        raise ArgumentError(f"no classes were added to {run}: add some with `finevote add-class {run} FOLDER`")
    added = load_added_names(place, manifest)
    old, class_names = predictions_of(opened.path, split=split, data=data)
    new, labels = _held_out_images(opened, added, split=split, data=data)
    names = (*class_names, *added)
    figures = measure_added(
        old,
        _extend(old, additions),
        np.empty((0, len(names))) if new is None else _extend(new, additions),
        len(class_names) + labels,
        class_names=names,
        num_added=len(added),
        split=split,
    )
    text = json.dumps(figures.to_dict(), indent=1, ensure_ascii=False)
    atomic_write(opened.evaluation(split).added_json, text + "\n")
    return figures


def _held_out_images(
    folder: RunFolder, added: Sequence[str], *, split: str, data: str | Path | None
) -> tuple[Predictions | None, NDArray[np.int64]]:
    """Return what is saved of the held-out images of added classes, and their numbers among these."""
    path = folder.evaluation(split).unknown_npz
    nothing = None, np.zeros(0, np.int64)
    if not path.is_file():
        return nothing
    predictions, _ = load_predictions(path, advice=measure_again(folder, split))
    truths = held_out_names(folder, split=split, data=data)
    names = [truths.get(image_id) for image_id in predictions.image_ids]
    rows = np.array([row for row, name in enumerate(names) if name in added], np.int64)
    if not len(rows):
        return nothing
    return take_rows(predictions, rows), np.array([added.index(str(names[row])) for row in rows], np.int64)


def _extend(predictions: Predictions, additions: Sequence[Addition]) -> Values:
    if predictions.embeddings is None:
        raise ArgumentError("the saved predictions have no embeddings: measure the split again with this finevote")
    return extended_logits(predictions.logits, predictions.embeddings, additions).astype(np.float64)


def take_back(run: Path | str) -> TakenBack:
    """Take the classes back that were added last to a run's bundle; what is left is as it was, byte for byte.

    Raises:
        ArgumentError: none were added.
        BundleError: there is no bundle, or its manifest is not as it was written.
        StorageError: the bundle cannot be written.
    """
    place = find_bundle(Path(run))
    before = _names_of(place)
    if remove_last_addition(place) is None:
        raise ArgumentError(f"there is nothing to take back: no classes were added to {run}")
    left = _names_of(place) or ()
    return TakenBack(() if before is None else before[len(left) :], left)


def open_photographs(folder: Path) -> DataSource:
    """Return the photographs of a folder as the one split "added", with their classes.

    Raises:
        DataError: there is no such folder, or there are no images in it; or images lie both in it and in sub-folders.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "is not there"
        raise DataError(f"{folder} {problem}: give a folder with one sub-folder of photographs for each new class")
    entries = list_folder(folder)
    classes = {plain_name(entry.name): Path(entry.path) for entry in entries if entry.is_dir()}
    loose = [entry.name for entry in entries if entry.is_file() and Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
    found = {name: [path for path in list_images([place]) if path.is_file()] for name, place in classes.items()}
    found = {name: paths for name, paths in found.items() if paths}
    if loose and found:
        raise DataError(
            f"{folder} has images of its own ({list_some(loose, noun='image')}) and folders of images "
            f"({list_some(list(found), noun='folder')}): put each class into a folder, or give the folder of one class"
        )
    if loose:
        found = {plain_name(folder.absolute().name): [folder / name for name in loose]}
    if not found:
        raise DataError(
            f"{folder} has no images: lay them out as <class>/<image>, with one of {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    names = sorted(found)
    records = tuple(
        Record(f"{name}/{path.relative_to(classes.get(name, folder)).as_posix()}", label, path)
        for label, name in enumerate(names)
        for path in sorted(found[name])
    )
    return DataSource(str(folder), tuple(names), {_SPLIT: records}, read_record)


def _check_names(names: Sequence[str], bundle: Bundle) -> None:
    if trained := [name for name in names if name in bundle.class_names]:
        raise ArgumentError(
            f"the model was trained on the class {trained[0]!r} already: give the folder another name, or fit the run "
            "anew with these photographs"
        )
    if added := [name for name in names if name in bundle.all_class_names]:
        raise ArgumentError(
            f"the class {added[0]!r} was added already: give the folder another name, or take it back with "
            "`finevote add-class RUN --undo` and add all of its photographs at once"
        )


def _readable(source: DataSource, *, skip_bad: bool) -> tuple[DataSource, dict[str, str]]:
    """Return the photographs that can be read, classes without any left out, and the others with their reasons."""
    unreadable = check_images(source, (_SPLIT,))
    if not unreadable:
        return source, {}
    if not skip_bad:
        listed = "\n".join(f"  {reason}" for reason in unreadable.values())
        raise DataError(
            f"{len(unreadable)} of {len(source.splits[_SPLIT])} photographs cannot be read:\n{listed}\n"
            "mend them, or leave them out with --skip-bad"
        )
    records = [record for record in source.splits[_SPLIT] if record.image_id not in unreadable]
    labels = sorted({record.label for record in records})
    if not labels:
        raise DataError(f"none of the {len(unreadable)} photographs in {source.name} can be read")
    kept = tuple(replace(record, label=labels.index(record.label)) for record in records)
    names = tuple(source.class_names[label] for label in labels)
    return replace(source, class_names=names, splits={_SPLIT: kept}), unreadable


def _look_at_old(folder: RunFolder, predictor: Predictor, *, data: str | Path | None) -> Old:
    """Return what validation and training images tell of the trained classes, and what was added before."""
    bundle = predictor.bundle
    if "val" not in folder.read_json(folder.split_json)["splits"]:
        raise DataError(
            f"{folder.path} was trained without validation: nothing tells what its classes would lose to new ones; fit "
            "it with validation images"
        )
    images, _ = predictions_of(folder.path, split="val", data=data)
    calibration, rate = bundle.calibration, predictor.model.keep_rate
    means = None
    if calibration is not None and calibration.keep_rate == rate:
        means = calibration.class_means
    if means is None:
        means = _find_means(open_split(folder, bundle, split="val", data=data), predictor)
    return Old(
        images=images,
        means=means,
        temperature=1.0 if calibration is None else calibration.temperature,
        keep_rate=rate,
        earlier=bundle.additions,
    )


def _find_means(source: DataSource, predictor: Predictor) -> Rates:
    """Return the mean direction of each class's training images, (C, D)."""
    records = some_of_each_class(source.splits["train"], most=IMAGES_FOR_MEAN)
    with Meter("training images", total=len(records)) as meter:
        some = replace(source, splits={"train": tuple(records)})
        found = predictor.predict_records(some, "train", advance=meter.advance)
    if found.embeddings is None:
        raise BundleError("the model gives no embeddings to make prototypes of")
    return class_means(found.embeddings, found.labels, num_classes=len(source.class_names))


def _details(figures: AddedFigures, photographs: DataSource) -> dict[str, object]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"time": now, "finevote": version("finevote"), "folder": photographs.name, "figures": figures.to_dict()}


def _names_of(place: Path) -> tuple[str, ...] | None:
    """Return the classes that are added to a bundle; None where a file of them cannot be read."""
    manifest = read_manifest(place)
    try:
        return load_added_names(place, manifest)
    except BundleError:
        return None
