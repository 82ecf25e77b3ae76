"""CUB-200-2011 and NABirds as they are published: text files that share their names and form.

    images.txt                id path        (below images/)
    image_class_labels.txt    id class
    train_test_split.txt      id 1 or 0      (1: training)
    classes.txt               class name
    bounding_boxes.txt        id x y width height           (pixels)
    parts/parts.txt           part name
    parts/part_locs.txt       id part x y visible           (pixels)

NABirds has hierarchy.txt besides, and its classes are the leaves of that tree: only those that images have count.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from finevote.data.items import list_some, plain_name
from finevote.data.published import (
    Layout,
    PublishedList,
    has,
    raise_bad_rows,
    read_rows,
    readable_name,
    split_fields,
    unique_names,
)
from finevote.data.regions import Annotation, PixelBox, TableFinder
from finevote.data.taxonomy import lineages_from_parents, make_taxonomy
from finevote.errors import DataError
from finevote.types import Taxonomy

K = TypeVar("K")
T = TypeVar("T")

_TABLES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "images")
_LISTS = {"1": "train", "0": "test"}
_DEPTHS = {"species": 3, "family": 2, "order": 1}  # steps below the root of hierarchy.txt


def _is_cub200(root: Path) -> bool:
    return has(root, *_TABLES) and not has(root, "hierarchy.txt")


def _is_nabirds(root: Path) -> bool:
    return has(root, *_TABLES, "hierarchy.txt")


def _read(root: Path, name: str) -> PublishedList:
    """Return one list; the classes are those that images have, in the order of their numbers."""
    paths = _read_pairs(root / "images.txt", "id path", str, str)
    labels = _read_pairs(root / "image_class_labels.txt", "id class", str, int)
    lists = _read_pairs(root / "train_test_split.txt", "id 1-or-0", str, _list_name)
    _check_same_images(root / "image_class_labels.txt", labels, paths)
    _check_same_images(root / "train_test_split.txt", lists, paths)
    classes = {class_id: label for label, class_id in enumerate(sorted(set(labels.values())))}
    images = [(f"images/{path}", classes[labels[image]]) for image, path in paths.items() if lists[image] == name]
    return _name_classes(root / "classes.txt", list(classes)), images


def _name_classes(path: Path, class_ids: Sequence[int]) -> list[str]:
    """Return the names of these classes; `001.Black_footed_Albatross` is made plain."""
    names = _read_pairs(path, "class name", int, str)
    unknown = [str(class_id) for class_id in class_ids if class_id not in names]
    if unknown:
        raise DataError(f"{path} lacks {list_some(unknown, noun='class')}: fetch it again")
    plain = {str(number): readable_name(names[number].removeprefix(f"{number:03d}.")) for number in class_ids}
    return unique_names(plain)


def _find_taxonomy(root: Path) -> Taxonomy:
    """Return NABirds' tree from the visual category upwards: a species, a family, an order.

    A species without categories of its own is one; a way to the root that is shorter repeats the class.
    """
    labels = _read_pairs(root / "image_class_labels.txt", "id class", str, int)
    class_ids = sorted(set(labels.values()))
    names = dict(zip(class_ids, _name_classes(root / "classes.txt", class_ids), strict=True))
    every = _read_pairs(root / "classes.txt", "class name", int, str)
    inner = {str(number): readable_name(name) for number, name in every.items() if number not in names}
    names |= dict(zip(map(int, inner), unique_names(inner), strict=True))
    ways = lineages_from_parents(class_ids, _read_pairs(root / "hierarchy.txt", "child parent", int, int))
    lineages = [
        [plain_name(names[way[min(depth, len(way)) - 1]]) for depth in (len(way), *_DEPTHS.values())] for way in ways
    ]
    return make_taxonomy(["category", *_DEPTHS], lineages, source=str(root / "hierarchy.txt"))


def _find_regions(root: Path, _: Sequence[str]) -> TableFinder | None:
    if not has(root, "bounding_boxes.txt"):
        return None
    return TableFinder(partial(_read_annotations, root), subject="bird")


def _read_annotations(root: Path) -> dict[str, Annotation]:
    paths = _read_pairs(root / "images.txt", "id path", str, str)
    boxes = dict(
        read_rows(
            root / "bounding_boxes.txt",
            lambda line: _box(*split_fields(line, "id x y width height", str, float, float, float, float)),
        )
    )
    points = _read_points(root) if has(root, "parts/part_locs.txt", "parts/parts.txt") else {}
    return {
        f"images/{path}": Annotation(subject=boxes.get(image), points=tuple(points.get(image, ())))
        for image, path in paths.items()
    }


def _read_points(root: Path) -> Mapping[str, list[tuple[str, float, float]]]:
    names = _read_pairs(root / "parts/parts.txt", "part name", str, readable_name)
    rows = read_rows(
        root / "parts/part_locs.txt",
        lambda line: split_fields(line, "id part x y visible", str, str, float, float, int),
    )
    points = defaultdict(list)
    for image, part, x, y, visible in rows:
        if visible:
            points[image].append((names.get(part, part), x, y))
    return points


def _box(image: str, x: float, y: float, width: float, height: float) -> tuple[str, PixelBox]:
    return image, PixelBox(x, y, x + width, y + height)


def _read_pairs(path: Path, form: str, key: Callable[[str], K], value: Callable[[str], T]) -> dict[K, T]:
    """Return the second field of every line by the first.

    Raises:
        DataError: as `read_rows`; or a key comes twice.
    """
    rows = read_rows(path, lambda line: split_fields(line, form, key, value))
    counts = Counter(first for first, _ in rows)
    raise_bad_rows(path, [f"{first} comes {count} times" for first, count in counts.items() if count > 1])
    return dict(rows)


def _check_same_images(path: Path, ids: Mapping[str, object], images: Mapping[str, object]) -> None:
    problems = [f"{image} is not in images.txt" for image in ids if image not in images]
    raise_bad_rows(path, problems + [f"{image} of images.txt is missing" for image in images if image not in ids])


def _list_name(text: str) -> str:
    if text not in _LISTS:
        raise ValueError(text)
    return _LISTS[text]


CUB200 = Layout(_is_cub200, _read, _find_regions, top=("CUB_200_2011",))
NABIRDS = Layout(_is_nabirds, _read, _find_regions, top=("nabirds",), find_taxonomy=_find_taxonomy)
