"""A run's split as it was divided, and the ledger of the test split: what is looked at, and how often."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from finevote.bundle.manifest import Manifest
from finevote.bundle.read import Bundle
from finevote.data.duplicates import same_files
from finevote.data.hold_out import images_of_classes, without_classes
from finevote.data.images import without
from finevote.data.registry import open_source, protocol_for
from finevote.data.splits import restore_split
from finevote.errors import ArgumentError, DataError, suggest
from finevote.files import atomic_write, exclusive
from finevote.run_folder import RunFolder
from finevote.types import DataSource

SPLITS = ("val", "test")


def check_split(split: str) -> None:
    """Raise ArgumentError unless it is a split that can be measured on."""
    if split not in SPLITS:
        raise ArgumentError(f"cannot measure on the split {split!r}{suggest(split, SPLITS)}")


def open_split(folder: RunFolder, bundle: Bundle | Manifest, *, split: str, data: str | Path | None) -> DataSource:
    """Return the data set with `split` as the run knows it; the test split is opened only if it is the one."""
    divided = folder.read_json(folder.split_json)
    if split == "val" and "val" not in divided["splits"]:
        raise DataError(
            f"{folder.path} was trained without validation: only its test split can be measured, by `finevote evaluate "
            f"{folder.path} --split test`"
        )
    source = _open_known(folder, bundle, split=split, data=data)
    if not source.splits.get(split):
        found = ", ".join(f"{len(records):,} of {name}" for name, records in source.splits.items() if records)
        raise DataError(f"{source.name} has no {split} images; it has {found or 'none at all'}")
    return source


def open_train(folder: RunFolder, bundle: Bundle | Manifest, *, data: str | Path | None) -> DataSource:
    """Return the data set as it was divided for the run: the images that it was fitted to, and validation, if any.

    Raises:
        DataError: images of the run are missing, or it is another data set.
    """
    return _open_known(folder, bundle, split="val", data=data)


def open_unknown(folder: RunFolder, *, split: str, data: str | Path | None) -> DataSource | None:
    """Return the data set with those images of `split` whose classes were held out of training; None without any.

    Raises:
        DataError: as `open_split`; or images of the run's split are missing.
    """
    saved, divided = folder.read_json(folder.data_json), folder.read_json(folder.split_json)
    if not (held_out := saved.get("held_out_classes")):
        return None
    source = without(_open(folder, split=split, data=data), saved["skipped"])
    if split == "val":
        whole = {**divided, "splits": {"val": divided["unknown"]["val"]}}
        source = restore_split(source, whole)
    records = images_of_classes(source, held_out, split=split)
    return replace(source, splits={split: records}) if records else None


def _open_known(folder: RunFolder, bundle: Bundle | Manifest, *, split: str, data: str | Path | None) -> DataSource:
    """Return the classes that the bundle knows: train and val as they were divided, or test."""
    saved, divided = folder.read_json(folder.data_json), folder.read_json(folder.split_json)
    source = _open(folder, split=split, data=data)
    source = without_classes(source, saved.get("held_out_classes", ()))
    if source.class_names != bundle.class_names:
        raise DataError(
            f"{source.name} has {len(source.class_names)} classes that are not the {len(bundle.class_names)} of "
            f"{folder.path}: give the data that it was fitted to"
        )
    source = without(source, saved["skipped"])
    return restore_split(source, divided) if split == "val" else source


def held_out_names(folder: RunFolder, *, split: str, data: str | Path | None) -> dict[str, str]:
    """Return {image_id: class} of the images of `split` whose classes were held out of training.

    Raises:
        DataError: as `open_split`.
    """
    held_out = folder.read_json(folder.data_json).get("held_out_classes", ())
    if not held_out:
        return {}
    source = _open(folder, split=split, data=data)
    records = [record for name in source.splits for record in source.splits[name]]
    names = {record.image_id: source.class_names[record.label] for record in records}
    return {image_id: name for image_id, name in names.items() if name in held_out}


def _open(folder: RunFolder, *, split: str, data: str | Path | None) -> DataSource:
    """Return all classes of the data set, undivided: train and val, or test."""
    saved = folder.read_json(folder.data_json)
    place = saved["data"] if data is None else data
    wanted = ("train", "val") if split == "val" else (split,)
    return open_source(place, splits=wanted, protocol=protocol_for(place, saved["protocol"]))


def find_seen(folder: RunFolder, source: DataSource, *, split: str, data: str | Path | None) -> dict[str, str] | None:
    """Return the images of `split` whose file the run was fitted to or chosen on, as {image_id: that one's image_id}.

    None if the images that the run was fitted to are no longer all there to compare with.
    """
    saved, divided = folder.read_json(folder.data_json), folder.read_json(folder.split_json)
    try:
        fitted = without(_open(folder, split="val", data=data), saved["skipped"])
        fitted = restore_split(fitted, divided)
    except DataError:
        return None
    others = [record for other in ("train", "val") if other != split for record in fitted.splits.get(other, ())]
    return {again.image_id: first.image_id for first, again in same_files(others, source.splits[split])}


class Openings(NamedTuple):
    """How often the test split was measured on with a run; `num_unread` of these are lines that nobody can read."""

    num: int
    num_unread: int


def count_openings(folder: RunFolder) -> Openings:
    """Return how often the test split was measured on with a run: every line of its ledger counts."""
    lines = _read_ledger(folder)
    return Openings(len(lines), sum(not _is_entry(line) for line in lines))


def enter_in_ledger(folder: RunFolder, manifest: Manifest, **circumstances: Any) -> Openings:
    """Note that the test split is about to be measured on; return how often it has been, this time included.

    Lines that cannot be read are kept as they are. Two processes enter one after the other.

    Raises:
        StorageError: the run cannot be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"time": now, "bundle_sha256": manifest.sha256, "finevote": version("finevote"), **circumstances}
    with exclusive(folder.path):
        lines = [*_read_ledger(folder), json.dumps(entry).encode()]
        atomic_write(folder.test_ledger_jsonl, b"\n".join(lines) + b"\n")
        return count_openings(folder)


def _read_ledger(folder: RunFolder) -> list[bytes]:
    path = folder.test_ledger_jsonl
    return path.read_bytes().splitlines() if path.exists() else []


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
