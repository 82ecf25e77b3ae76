"""The published sets that torchvision reads: Oxford-IIIT Pet, Stanford Cars, FGVC-Aircraft, Food-101, iNaturalist 2021.

torchvision's readers want a folder of a certain name; where the set lies in another one, they are shown a link to it.
Their files are checked before, so that every bad row is told and not only the first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from finevote.data.items import list_some
from finevote.data.published import (
    Labelled,
    Layout,
    PublishedList,
    has,
    name_numbers,
    raise_bad_rows,
    read_mat,
    read_rows,
    readable_name,
    split_fields,
    unique_names,
)
from finevote.data.regions import Annotation, PixelBox, TableFinder, VocFinder
from finevote.errors import DataError
from finevote.types import Record

_PETS_LISTS = {"train": "trainval", "test": "test"}
_CARS_TABLES = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
_CARS_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
_AIRCRAFT_NAMES = {"variant": "variants.txt", "family": "families.txt", "manufacturer": "manufacturers.txt"}
_INAT_FOLDERS = {"2021_train": "train", "2021_train_mini": "train_mini", "2021_valid": "val"}
_INAT_CLASS = re.compile(r"\d{5}(_[^_]+){7}")


# Oxford-IIIT Pet


def _is_pets(root: Path) -> bool:
    return has(root, "images", "annotations/trainval.txt", "annotations/test.txt")


def _pets(root: Path, name: str) -> PublishedList:
    path = root / "annotations" / f"{_PETS_LISTS[name]}.txt"
    rows = read_rows(path, lambda line: split_fields(line, "name class species breed", str, int, int, int))
    name_numbers(path, [(number, image.rpartition("_")[0]) for image, number, *_ in rows])

    from torchvision.datasets import OxfordIIITPet

    with _shown_as(root, "oxford-iiit-pet") as folder:
        reader = _make(partial(OxfordIIITPet, folder, split=_PETS_LISTS[name]), root)
        # It has no way to ask for a path without decoding the image.
        images = zip(reader._images, reader._labels, strict=True)  # noqa: SLF001
        return reader.classes, _relative(images, folder / "oxford-iiit-pet")


def _pets_regions(root: Path, _: Sequence[str]) -> VocFinder | None:
    return VocFinder(partial(_pets_xml, root), part="head") if has(root, "annotations/xmls") else None


def _pets_xml(root: Path, record: Record) -> Path:
    return root / "annotations" / "xmls" / f"{Path(record.image_id).stem}.xml"


# Stanford Cars


def _is_cars(root: Path) -> bool:
    return has(root, "devkit/cars_meta.mat", *_CARS_TABLES.values(), "cars_train", "cars_test")


def _cars(root: Path, name: str) -> PublishedList:
    num_classes = np.size(read_mat(root / "devkit/cars_meta.mat", ["class_names"])["class_names"])
    wrong = [number for number in _read_car_table(root, name)["class"] if number not in range(1, num_classes + 1)]
    raise_bad_rows(root / _CARS_TABLES[name], [f"class {number} is none of 1 to {num_classes}" for number in wrong])

    from torchvision.datasets import StanfordCars

    with _shown_as(root, "stanford_cars") as folder:
        reader = _make(partial(StanfordCars, folder, split=name, loader=Path), root)
        return [readable_name(str(car)) for car in reader.classes], _rows(reader, folder / "stanford_cars")


def _read_car_table(root: Path, name: str) -> np.ndarray:
    """Return the annotations, one row an image.

    Raises:
        DataError: as `read_mat`; or a column is missing.
    """
    path = root / _CARS_TABLES[name]
    table = np.atleast_1d(read_mat(path, ["annotations"])["annotations"])
    missing = [column for column in (*_CARS_BOX, "class", "fname") if column not in (table.dtype.names or ())]
    if missing:
        raise DataError(f"{path} has annotations without {', '.join(missing)}: fetch it again")
    return table


def _cars_regions(root: Path, lists: Sequence[str]) -> TableFinder:
    return TableFinder(partial(_read_car_boxes, root, lists), subject="car")


def _read_car_boxes(root: Path, lists: Sequence[str]) -> Mapping[str, Annotation]:
    return {
        f"cars_{name}/{row['fname']}": Annotation(subject=PixelBox(*(float(row[side]) for side in _CARS_BOX)))
        for name in lists
        for row in _read_car_table(root, name)
    }


# FGVC-Aircraft


def _is_aircraft(root: Path) -> bool:
    return has(root, "data/images", "data/variants.txt", "data/images_variant_train.txt")


def _aircraft(root: Path, name: str, *, level: str) -> PublishedList:
    classes = set(read_rows(root / "data" / _AIRCRAFT_NAMES[level], str))
    path = root / "data" / f"images_{level}_{name}.txt"
    rows = read_rows(path, lambda line: split_fields(line, "image class", str, str))
    raise_bad_rows(path, [f"unknown class {label!r}" for _, label in rows if label not in classes])

    from torchvision.datasets import FGVCAircraft

    with _shown_as(root, "fgvc-aircraft-2013b") as folder:
        reader = _make(partial(FGVCAircraft, folder, split=name, annotation_level=level, loader=Path), root)
        return reader.classes, _rows(reader, folder / "fgvc-aircraft-2013b")


def _aircraft_regions(root: Path, _: Sequence[str]) -> TableFinder | None:
    if not has(root, "data/images_box.txt"):
        return None
    return TableFinder(partial(_read_aircraft_boxes, root), subject="aircraft")


def _read_aircraft_boxes(root: Path) -> Mapping[str, Annotation]:
    """Return the boxes; their pixels count from 1, and the last one belongs to the box."""
    rows = read_rows(
        root / "data/images_box.txt",
        lambda line: split_fields(line, "image xmin ymin xmax ymax", str, float, float, float, float),
    )
    return {
        f"data/images/{image}.jpg": Annotation(subject=PixelBox(left - 1, top - 1, right, bottom))
        for image, left, top, right, bottom in rows
    }


# Food-101


def _is_food101(root: Path) -> bool:
    return has(root, "images", "meta/train.json", "meta/test.json")


def _food101(root: Path, name: str) -> PublishedList:
    path = root / "meta" / f"{name}.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}: fetch it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a list of images for each class: fetch it again")
    wrong = [
        label
        for label, images in content.items()
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images)
    ]
    raise_bad_rows(path, [f"{label!r} has no list of image names" for label in wrong])

    from torchvision.datasets import Food101

    with _shown_as(root, "food-101") as folder:
        reader = _make(partial(Food101, folder, split=name, loader=Path), root)
        return [readable_name(food) for food in reader.classes], _rows(reader, folder / "food-101")


# iNaturalist 2021


def _is_inat2021(root: Path, *, train: str) -> bool:
    return all(_first_class(root / _INAT_FOLDERS[version]) for version in (train, "2021_valid"))


def _first_class(folder: Path) -> bool:
    """Tell whether the folder holds a class folder in the form `00000_Animalia_..._Genus_species`."""
    try:
        return any(_INAT_CLASS.fullmatch(entry.name) for entry in folder.iterdir())
    except OSError:
        return False


def _inat2021(root: Path, version: str) -> PublishedList:
    original = root / _INAT_FOLDERS[version]
    classes = sorted(entry.name for entry in original.iterdir())
    wrong = [
        name
        for number, name in enumerate(classes)
        if not _INAT_CLASS.fullmatch(name) or int(name.partition("_")[0]) != number
    ]
    if wrong:
        raise DataError(
            f"{original} has {list_some(wrong, noun='entry')} that are not 00000_Kingdom_..._Genus_species and so on: "
            "remove them, or unpack its archive again"
        )

    from torchvision.datasets import INaturalist

    with _shown_as(original, version) as folder:
        reader = _make(partial(INaturalist, folder, version=version, loader=Path), original)
        rows = [
            (f"{original.name}/{reader.all_categories[label]}/{name}", label)
            for label, name in reader.index
            if not name.startswith(".")
        ]
    species = {name.partition("_")[0]: " ".join(name.split("_")[-2:]) for name in classes}
    return unique_names(species), rows


# What they have in common


@contextmanager
def _shown_as(root: Path, name: str) -> Iterator[Path]:
    """Yield a folder in which the set's root goes by the name that torchvision looks for."""
    if root.name == name:
        yield root.parent
        return
    with TemporaryDirectory() as folder:
        link = Path(folder) / name
        try:
            link.symlink_to(root.absolute(), target_is_directory=True)
        except OSError as error:
            raise DataError(f"cannot link to {root} ({error.strerror}): rename the folder to {name}") from None
        yield Path(folder)


def _make(reader: Callable[[], Any], root: Path) -> Any:
    try:
        return reader()
    except Exception as error:  # torchvision raises whatever its parsing meets
        raise DataError(f"cannot read {root}: {' '.join(str(error).split())}: unpack its archives again") from error


def _rows(reader: Any, folder: Path) -> list[Labelled]:
    """Return the images of a reader whose loader gives the path back."""
    return _relative((reader[number] for number in range(len(reader))), folder)


def _relative(rows: Any, folder: Path) -> list[Labelled]:
    return [(Path(path).relative_to(folder).as_posix(), int(label)) for path, label in rows]


PETS = Layout(_is_pets, _pets, _pets_regions, top=("oxford-iiit-pet",))
CARS = Layout(_is_cars, _cars, _cars_regions, top=("stanford_cars",))
FOOD101 = Layout(_is_food101, _food101, top=("food-101",))


def aircraft(level: str) -> Layout:
    """Return the layout whose classes are a level of the hierarchy: variant, family or manufacturer."""
    read = partial(_aircraft, level=level)
    return Layout(_is_aircraft, read, _aircraft_regions, top=("fgvc-aircraft-2013b",), banner_px=20)


def inat2021(train: str) -> Layout:
    """Return the layout whose training list is `2021_train` or `2021_train_mini`."""
    return Layout(partial(_is_inat2021, train=train), _inat2021)
