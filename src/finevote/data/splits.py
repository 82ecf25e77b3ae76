"""Making a validation split out of training images, and keeping it with the run."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from finevote.data.items import list_some
from finevote.data.seeds import combine_seeds
from finevote.errors import ArgumentError, DataError
from finevote.types import DataSource, Record


def with_validation(source: DataSource, *, fraction: float, seed: int) -> DataSource:
    """Return the source with a validation split; unchanged if it has one already. A fraction of 0 makes none.

    Of every class with at least two subjects, `fraction` of the training images (at least one) are held out. Images
    of one group stay together, so a class of large groups may give more or less. A class with a single image or group
    stays wholly in train. The choice depends on the image names and the seed, not on their order.

    Raises:
        ArgumentError: `fraction` is not at least 0 and below 1.
        DataError: no class has two images (or groups) to divide.
    """
    if source.splits.get("val"):
        return source
    if not 0 <= fraction < 1:
        raise ArgumentError(f"fraction={fraction} must be at least 0 and below 1")
    train = source.splits.get("train", ())
    if fraction == 0:
        note = f"no validation: all {len(train):,} training images are trained on and the last epoch is kept"
        return replace(source, notes=(*source.notes, note))
    held_out = _choose(_units(train), fraction=fraction, seed=seed)
    if not held_out:
        units = "images" if all(record.group is None for record in train) else "groups (or images without one)"
        raise DataError(
            f"{source.name}: no class has two {units} to divide, so no validation split can be made: add some"
        )
    note = f"no validation split given: held out {len(held_out)} of {len(train)} training images (seed {seed})"
    splits = {
        **source.splits,
        "train": tuple(record for record in train if record.image_id not in held_out),
        "val": tuple(record for record in train if record.image_id in held_out),
    }
    return replace(source, splits=splits, notes=(*source.notes, note))


def describe_setting(source: DataSource, *, is_held_out: bool) -> str:
    """Return what must stand beside a number: the protocol, the training images, how the epoch was chosen."""
    num_train, num_val = (len(source.splits.get(split, ())) for split in ("train", "val"))
    chosen = "kept after the last epoch, without validation"
    if num_val:
        chosen = f"epoch chosen on {num_val:,} {'held out of training' if is_held_out else 'of validation'}"
    protocol = f"protocol {source.protocol}: " if source.protocol else ""
    return f"{protocol}trained on {num_train:,} images, {chosen}"


def describe_split(source: DataSource) -> dict[str, Any]:
    """Return, ready for JSON, the image ids of every split at hand and how they came about."""
    return {
        "data": source.name,
        "protocol": source.protocol,
        "notes": list(source.notes),
        "splits": {split: [record.image_id for record in records] for split, records in source.splits.items()},
    }


def restore_split(source: DataSource, saved: Mapping[str, Any]) -> DataSource:
    """Divide the training and validation images of `source` as `saved` by `describe_split`.

    Images that are new since then are left out, with a note; a test split is not touched.

    Raises:
        DataError: images of the saved split are missing.
    """
    pool = {record.image_id: record for split in ("train", "val") for record in source.splits.get(split, ())}
    wanted = {split: ids for split, ids in saved["splits"].items() if split in ("train", "val")}
    missing = [image_id for ids in wanted.values() for image_id in ids if image_id not in pool]
    if missing:
        listed = list_some(missing, noun="image")
        raise DataError(f"{source.name} lacks {listed} of the run's split: bring them back, or start a new run")
    num_new = len(pool) - sum(map(len, wanted.values()))
    notes = (
        (*source.notes, f"left out, being new since the run's split: {num_new} of {len(pool)}")
        if num_new
        else source.notes
    )
    divided = {split: tuple(pool[image_id] for image_id in ids) for split, ids in wanted.items()}
    others = {split: records for split, records in source.splits.items() if split not in {"train", "val"}}
    return replace(source, splits={**others, **divided}, notes=notes)


def _units(records: Sequence[Record]) -> list[list[Record]]:
    """Return what must stay together: the records of each group, and every other record by itself."""
    units: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.image_id):
        key = ("image", record.image_id) if record.group is None else ("group", record.group)
        units[key].append(record)
    return list(units.values())


def _choose(units: list[list[Record]], *, fraction: float, seed: int) -> set[str]:
    """Return the image ids to hold out: first whole units within every class's quota, then one for empty classes."""
    sizes = Counter(record.label for unit in units for record in unit)
    num_left = Counter(label for unit in units for label in {record.label for record in unit})  # units in train
    quota = {label: max(1, round(size * fraction)) for label, size in sizes.items()}
    taken: Counter[int] = Counter()
    held_out: set[str] = set()
    order = np.random.default_rng(combine_seeds(seed)).permutation(len(units))
    shuffled = [units[position] for position in order]

    def take(unit: list[Record]) -> None:
        counts = Counter(record.label for record in unit)
        num_left.subtract(counts.keys())
        taken.update(counts)
        held_out.update(record.image_id for record in unit)

    for unit in shuffled:
        counts = Counter(record.label for record in unit)
        if all(num_left[label] > 1 and taken[label] + counts[label] <= quota[label] for label in counts):
            take(unit)
    for unit in sorted(shuffled, key=len):  # classes whose groups are all larger than their quota
        labels = {record.label for record in unit}
        if any(not taken[label] for label in labels) and all(num_left[label] > 1 for label in labels):
            take(unit)
    return held_out
