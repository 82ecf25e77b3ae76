"""A published data set on disk: known by its layout, divided by a protocol, its lists checked as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from finevote.data.images import read_record
from finevote.data.items import NUM_LISTED, check_encoding, list_some, plain_name
from finevote.errors import ArgumentError, DataError, suggest
from finevote.remote.download import RemoteFile
from finevote.types import DataSource, Record, Regions, Taxonomy

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
Labelled = tuple[str, int]  # an image's path below the root, with slashes, and its class from 0
PublishedList = tuple[Sequence[str], Sequence[Labelled]]  # the names of all classes, and the images
Locate = Callable[[Record], Regions]


@dataclass(frozen=True)
class Layout:
    """How a published data set lies on disk.

    `is_here` tells of a folder whether it is the root; `top` names the folders that an archive may unpack the root
    into. `read(root, list)` gives one of the published lists; `find_regions(root, lists)` what locates the boxes of
    images in these lists, or None where their files are missing. `find_taxonomy(root)` gives that of the classes. The
    lowest `banner_px` rows of an image are cut off.
    """

    is_here: Callable[[Path], bool]
    read: Callable[[Path, str], PublishedList]
    find_regions: Callable[[Path, Sequence[str]], Locate | None] | None = None
    top: tuple[str, ...] = ()
    banner_px: int = 0
    find_taxonomy: Callable[[Path], Taxonomy] | None = None

    def find(self, folder: Path) -> Path | None:
        """Return the root, which is `folder` or one of its `top` folders; None if it is not there."""
        return next((root for root in (folder, *(folder / name for name in self.top)) if self.is_here(root)), None)


@dataclass(frozen=True)
class Protocol:
    """A way to divide a published set: the published lists that each split is made of."""

    name: str
    about: str
    lists: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class DatasetInfo:
    """A published data set.

    `num_images` counts the images of each published list, which `protocols` put together to splits; the first protocol
    is the usual one. `licence` is a word or two, `terms` says more. `folder` is where the set lies below the folder of
    all sets; sets that share files share it. `subject` and `parts` say what has boxes, "" for none. `instructions` tell
    how to come by files without a source. `pitfalls` are to be known before a number is quoted; `caveat` must stand
    beside every number.
    """

    name: str
    title: str
    layout: Layout
    folder: str
    num_classes: int
    num_images: Mapping[str, int]
    protocols: tuple[Protocol, ...]
    licence: str
    source_url: str
    files: tuple[RemoteFile, ...]
    terms: str = ""
    caveat: str = ""
    pitfalls: tuple[str, ...] = ()
    subject: str = ""
    parts: str = ""
    instructions: str = ""

    def count(self, protocol: Protocol, split: str) -> int:
        """Return how many images a split has as published; 0 if the protocol has none."""
        return sum(self.num_images[part] for part in protocol.lists.get(split, ()))

    def find(self, folder: Path) -> Path | None:
        """Return the set's root in or at a folder; None if it is not there."""
        return self.layout.find(folder)

    def differences(self, source: DataSource, protocol: Protocol) -> list[str]:
        """Return, in words, where classes and images differ in number from what was published."""
        found = {"classes": (len(source.class_names), self.num_classes)}
        found |= {f"{split} images": (len(rows), self.count(protocol, split)) for split, rows in source.splits.items()}
        return [f"{here:,} {what}, {there:,} as published" for what, (here, there) in found.items() if here != there]


def open_published(layout: Layout, root: Path, *, name: str, protocol: Protocol, splits: Sequence[str]) -> DataSource:
    """Open the splits that are asked for; the lists and images of others are not looked at.

    Raises:
        DataError: a file is missing or malformed (all bad rows are told), images are missing (all are counted), two
            lists have other classes, or the protocol has no test split though it was asked for.
    """
    check_encoding([str(root)])
    wanted = {split: lists for split, lists in protocol.lists.items() if split in splits}
    if "test" in splits and "test" not in wanted:
        raise DataError(
            f"{name} has no test images under the protocol {protocol.name}: evaluate on the validation split, or "
            "choose another protocol"
        )
    parts = [part for lists in wanted.values() for part in lists] or protocol.lists["train"]  # to name the classes
    published = {part: layout.read(root, part) for part in parts}
    class_names = _agree(root, {part: names for part, (names, _) in published.items()})
    return DataSource(
        name=name,
        class_names=class_names,
        splits={
            split: _records(root, layout, [row for part in lists for row in published[part][1]], len(class_names))
            for split, lists in wanted.items()
        },
        read=read_record,
        locate=layout.find_regions(root, tuple(published)) if layout.find_regions else None,
        protocol=protocol.name,
        taxonomy=layout.find_taxonomy(root) if layout.find_taxonomy else None,
    )


def choose_protocol(protocols: Sequence[Protocol], wanted: str | None, *, name: str) -> Protocol:
    """Return the protocol of that name; None: the first.

    Raises:
        ArgumentError: there is no such protocol.
    """
    if wanted is None:
        return protocols[0]
    for protocol in protocols:
        if protocol.name == wanted:
            return protocol
    raise ArgumentError(f"{name} has no protocol {wanted!r}{suggest(wanted, [known.name for known in protocols])}")


def has(root: Path, *names: str) -> bool:
    """Tell whether all of these files and folders are there."""
    return all((root / name).exists() for name in names)


def read_rows(path: Path, parse: Callable[[str], T]) -> list[T]:
    """Return what `parse` makes of each line that is not blank; it raises ValueError for a line it cannot take.

    Raises:
        DataError: the file cannot be read, or lines are not of the right form (all are told together).
    """
    rows, problems = [], []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(parse(line.strip()))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    raise_bad_rows(path, problems)
    return rows


def raise_bad_rows(path: Path, problems: Sequence[str]) -> None:
    """Raise DataError with the problems of a file's rows, the first ten of them in words; nothing if there are none."""
    if problems:
        shown = "; ".join(problems[:NUM_LISTED])
        rest = "; ..." if len(problems) > NUM_LISTED else ""
        raise DataError(f"{path}, bad rows ({len(problems)}): {shown}{rest}: fetch the file again")


def split_fields(line: str, form: str, *kinds: Callable[[str], Any]) -> tuple[Any, ...]:
    """Return the fields of a line, parted by blanks, each as its kind; the last one may hold blanks if it is text.

    Raises:
        ValueError: there are more or fewer fields than kinds, or one is not of its kind; `form` says what is expected.
    """
    fields = line.split(maxsplit=len(kinds) - 1)
    try:
        return tuple(kind(field.strip()) for kind, field in zip(kinds, fields, strict=True))
    except ValueError:
        raise ValueError(f"expected {form!r}, but got {line!r}") from None


def read_mat(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the named variables of a MATLAB file, length-one axes dropped; others in it are not read.

    Raises:
        DataError: it cannot be read, or a variable is missing.
    """
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(path), variable_names=list(keys), squeeze_me=True)
        return {key: content[key] for key in keys}
    except KeyError as error:
        raise DataError(f"{path} has no array {error}: fetch the file again") from None
    except Exception as error:  # a parser of broken files may raise anything at all
        raise DataError(f"cannot read {path}: {error}: fetch the file again") from error


def name_numbers(path: Path, rows: Sequence[tuple[int, str]]) -> list[str]:
    """Return the names of the classes 1, 2, ... from rows (class, name).

    Raises:
        DataError: a class has two names, or none.
    """
    names: dict[int, str] = {}
    problems = []
    for number, name in rows:
        if names.setdefault(number, name) != name:
            problems.append(f"class {number} is both {names[number]} and {name}")
    problems += [f"class {number} has no image" for number in range(1, max(names, default=0)) if number not in names]
    raise_bad_rows(path, list(dict.fromkeys(problems)))
    return [names[number] for number in sorted(names)]


def read_integers(path: Path, key: str) -> list[int]:
    """Return a variable of a MATLAB file, flat.

    Raises:
        DataError: as `read_mat`; or it does not hold whole numbers, or none at all.
    """
    import numpy as np

    values = np.atleast_1d(read_mat(path, [key])[key]).ravel()
    if not values.size or values.dtype.kind not in "iuf" or (values != np.round(values)).any():
        raise DataError(f"{path} has no whole numbers in {key!r}: fetch the file again")
    numbers: list[int] = values.astype(np.int64).tolist()
    return numbers


def readable_name(name: str) -> str:
    """Return a class name as a person writes it: blanks for underscores."""
    return " ".join(name.replace("_", " ").split())


def unique_names(names: Mapping[str, str]) -> list[str]:
    """Return the names of the classes with these ids, those that come twice told apart by their ids."""
    counts = Counter(names.values())
    return [name if counts[name] == 1 else f"{name} ({class_id})" for class_id, name in names.items()]


def _agree(root: Path, names: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the class names that all lists have."""
    (first, expected), *others = names.items()
    for part, found in others:
        if list(found) != list(expected):
            raise DataError(f"{root}: its lists {first} and {part} have other classes: fetch its lists again")
    return tuple(plain_name(name) for name in expected)


def _records(root: Path, layout: Layout, rows: Sequence[Labelled], num_classes: int) -> tuple[Record, ...]:
    """Return the records of a split in the order of their ids, once it is sure that their files are there."""
    if any(label >= num_classes for _, label in rows):
        raise DataError(f"{root} has images of more classes than the {num_classes} it names: fetch its lists again")
    outside = [image_id for image_id, _ in rows if _leads_outside(image_id)]
    if outside:
        raise DataError(f"{root} lists {list_some(outside, noun='image')} outside of itself: fetch its lists again")
    repeated = [image_id for image_id, count in Counter(image_id for image_id, _ in rows).items() if count > 1]
    if repeated:
        raise DataError(f"{root} lists {list_some(repeated, noun='image')} more than once: fetch its lists again")
    missing = [image_id for image_id, _ in rows if not (root / image_id).is_file()]
    if missing:
        raise DataError(f"{root} lacks {list_some(missing, noun='image')}: unpack its archive again")
    return tuple(
        Record(plain_name(image_id), label, root / image_id, banner_px=layout.banner_px)
        for image_id, label in sorted(rows)
    )


def _leads_outside(image_id: str) -> bool:
    path = PurePosixPath(image_id)
    return path.is_absolute() or ".." in path.parts


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: fetch the file again") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}: fetch or unpack it again") from None
