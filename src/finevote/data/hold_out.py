"""Classes left out of training, whose images then stand for what a model has never seen."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finevote.data.items import list_some
from finevote.data.seeds import combine_seeds
from finevote.errors import ArgumentError, suggest
from finevote.types import DataSource, Record

UNKNOWN_LABEL = -1


def choose_classes(class_names: Sequence[str], wanted: int | Sequence[str], *, seed: int) -> tuple[str, ...]:
    """Return the classes to hold out, in the order of `class_names`: the ones named, or as many drawn by the seed.

    Raises:
        ArgumentError: there is no such class, or fewer than two would be left.
    """
    if isinstance(wanted, int):
        drawn = np.random.default_rng(combine_seeds(seed)).permutation(len(class_names))[:wanted]
        chosen = {class_names[label] for label in drawn}
    else:
        chosen = set(wanted)
    if unknown := sorted(chosen - set(class_names)):
        raise ArgumentError(f"there is no class {unknown[0]!r} to hold out{suggest(unknown[0], class_names)}")
    num_wanted = wanted if isinstance(wanted, int) else len(chosen)
    if num_wanted > len(class_names) - 2 and num_wanted:
        raise ArgumentError(
            f"holding out {num_wanted} of {len(class_names)} classes leaves fewer than two to learn: hold out at most "
            f"{max(len(class_names) - 2, 0)}"
        )
    return tuple(name for name in class_names if name in chosen)


def without_classes(source: DataSource, held_out: Sequence[str]) -> DataSource:
    """Return the source without these classes, with a note; the others are numbered anew, in the same order."""
    if not held_out:
        return source
    kept = [label for label, name in enumerate(source.class_names) if name not in held_out]
    numbers = {label: number for number, label in enumerate(kept)}
    splits = {
        split: tuple(replace(record, label=numbers[record.label]) for record in records if record.label in numbers)
        for split, records in source.splits.items()
    }
    note = f"held out, to stand for the unknown: {list_some(list(held_out), noun='class')}"
    names = tuple(source.class_names[label] for label in kept)
    taxonomy = source.taxonomy
    if taxonomy is not None:
        taxonomy = replace(taxonomy, lineages=tuple(taxonomy.lineages[label] for label in kept))
    return replace(source, class_names=names, splits=splits, notes=(*source.notes, note), taxonomy=taxonomy)


def images_of_classes(source: DataSource, held_out: Sequence[str], *, split: str) -> tuple[Record, ...]:
    """Return a split's images of these classes, which a model without them can give no label: theirs is -1."""
    labels = {label for label, name in enumerate(source.class_names) if name in held_out}
    records = source.splits.get(split, ())
    return tuple(replace(record, label=UNKNOWN_LABEL) for record in records if record.label in labels)
