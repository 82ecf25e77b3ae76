"""What every data set on disk has in common: labelled files, turned into a checked DataSource."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from finevote.data.images import read_record
from finevote.errors import DataError
from finevote.types import DataSource, Record

SPLIT_NAMES = ("train", "val", "test")
SPLIT_ALIASES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
NUM_LISTED = 10


class Item(NamedTuple):
    """One labelled image; `image_id` is unique in the data set and stable between machines. See `Record`."""

    image_id: str
    path: Path | None
    class_name: str
    split: str
    group: str | None = None
    cell: str | None = None


def source_from_items(
    name: str,
    items: Iterable[Item],
    *,
    splits: Sequence[str],
    notes: Sequence[str] = (),
    read: Callable[[Record], Image.Image] = read_record,
) -> DataSource:
    """Number the classes of the training items in natural order and sort every item into its split.

    A split that was not asked for, or that has no items, is absent. The training items must be given even when
    "train" is not asked for, since they name the classes.

    Raises:
        DataError: no training images, fewer than two classes, a class unknown to train, or no test images though
            they were asked for.
    """
    check_encoding([name])
    by_split: dict[str, list[Item]] = {split: [] for split in SPLIT_NAMES}
    for item in items:
        by_split[item.split].append(item)
    class_names = _class_names(name, by_split["train"])
    _check_known_classes(name, by_split, class_names)
    number = {class_name: label for label, class_name in enumerate(class_names)}
    found = {
        split: tuple(
            Record(item.image_id, number[item.class_name], item.path, group=item.group, cell=item.cell)
            for item in by_split[split]
        )
        for split in SPLIT_NAMES
        if split in splits and by_split[split]
    }
    check_asked(name, found, splits)
    all_notes = (*notes, *_missing_notes(by_split, class_names), *lonely_notes(by_split["train"]))
    return DataSource(name, class_names, found, read, all_notes)


def check_asked(name: str, found: Iterable[str], splits: Sequence[str]) -> None:
    """Refuse a source without a test split that was asked for; a missing validation split can still be made."""
    if "test" in splits and "test" not in found:
        raise DataError(
            f"{name} has no test images: add a test split (a test/ folder, or split=test in a table), "
            "or evaluate on the validation split"
        )


def lonely_notes(train: Iterable[Item]) -> list[str]:
    """Return a warning that names the classes with a single training image, or nothing."""
    counts = Counter(item.class_name for item in train)
    lonely = [class_name for class_name, count in counts.items() if count == 1]
    if not lonely:
        return []
    return [f"only one training image in {list_some(lonely, noun='class')}: too few to learn from or to validate on"]


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return the visible entries of a folder in natural order.

    Raises:
        DataError: the folder cannot be listed, or a name in it is not valid UTF-8.
    """
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot list the folder {folder}: {error.strerror}: check its name and permissions") from None
    check_encoding([entry.path for entry in visible])
    return sorted(visible, key=lambda entry: natural_key(entry.name))


def check_encoding(paths: Iterable[str]) -> None:
    """Raise DataError if the bytes of a path are not UTF-8, which no report and no file of a run could hold."""
    bad = [path for path in paths if any("\ud800" <= letter <= "\udfff" for letter in path)]
    if bad:
        raise DataError(f"{bad[0]!a} has a name that is not valid UTF-8: rename it, for example with convmv")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sorting key under which `class2` comes before `class10`."""
    pieces = re.split(r"(\d+)", name.casefold())  # text, digits, text, ...: like meets like
    return [int(piece) if position % 2 else piece for position, piece in enumerate(pieces)], name


def plain_name(name: str) -> str:
    """Return a name in one Unicode form, so that systems that store accents differently agree."""
    return unicodedata.normalize("NFC", name)


def list_some(names: Sequence[str], *, noun: str) -> str:
    """Return `3 classes: a, b, c`, at most ten of them by name."""
    plural = noun if len(names) == 1 else noun + ("es" if noun.endswith("s") else "s")
    listed = ", ".join(names[:NUM_LISTED])
    return f"{len(names)} {plural}: {listed}{', ...' if len(names) > NUM_LISTED else ''}"


def _class_names(name: str, train: Sequence[Item]) -> tuple[str, ...]:
    class_names = tuple(sorted({item.class_name for item in train}, key=natural_key))
    if not class_names:
        raise DataError(f"{name} has no training images: give at least two classes with some images each")
    if len(class_names) == 1:
        raise DataError(f"{name} has only one class, {class_names[0]!r}: telling apart needs at least two")
    return class_names


def _check_known_classes(name: str, by_split: dict[str, list[Item]], class_names: tuple[str, ...]) -> None:
    for split in ("val", "test"):
        unknown = {item.class_name for item in by_split[split]} - set(class_names)
        if unknown:
            listed = list_some(sorted(unknown, key=natural_key), noun="class")
            raise DataError(f"{name}: the {split} split has {listed}, not in train: add training images or remove them")


def _missing_notes(by_split: dict[str, list[Item]], class_names: tuple[str, ...]) -> list[str]:
    notes = []
    for split in ("val", "test"):
        present = {item.class_name for item in by_split[split]}
        missing = [class_name for class_name in class_names if class_name not in present]
        if present and missing:
            notes.append(f"the {split} split has no images of {list_some(missing, noun='class')}")
    return notes
