"""Stanford Dogs as it is published: Images/, Annotation/, and lists as MATLAB files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from finevote.data.published import (
    Layout,
    PublishedList,
    has,
    name_numbers,
    raise_bad_rows,
    read_integers,
    read_mat,
    readable_name,
    unique_names,
)
from finevote.data.regions import VocFinder
from finevote.errors import DataError
from finevote.types import Record


def _is_dogs(root: Path) -> bool:
    return has(root, "Images", "train_list.mat", "test_list.mat")


def _read(root: Path, name: str) -> PublishedList:
    """Return one list; a class is named by what follows the first dash in the name of its folder."""
    path = root / f"{name}_list.mat"
    rows = _read_mat_list(path)
    folders = name_numbers(path, [(label, file.partition("/")[0]) for file, label in rows])
    return unique_names({folder: _breed(folder) for folder in folders}), [
        (f"Images/{file}", label - 1) for file, label in rows
    ]


def _read_mat_list(path: Path) -> list[tuple[str, int]]:
    """Return the files below Images/ and their classes, which count from 1."""
    files = [str(file) for file in np.atleast_1d(read_mat(path, ["file_list"])["file_list"])]
    labels = read_integers(path, "labels")
    if len(files) != len(labels):
        raise DataError(f"{path} has {len(files)} files, but {len(labels)} labels: fetch it again")
    rows = list(zip(files, labels, strict=True))
    wrong = [(file, label) for file, label in rows if file.count("/") != 1 or label < 1]
    raise_bad_rows(
        path, [f"{file!r} of class {label} is not <folder>/<image> of a class from 1" for file, label in wrong]
    )
    return rows


def _find_regions(root: Path, _: Sequence[str]) -> VocFinder | None:
    return VocFinder(partial(_voc_path, root), subject="dog") if has(root, "Annotation") else None


def _voc_path(root: Path, record: Record) -> Path:
    return root / record.image_id.replace("Images/", "Annotation/", 1).rpartition(".")[0]


def _breed(folder: str) -> str:
    return readable_name(folder.partition("-")[2] or folder)


DOGS = Layout(_is_dogs, _read, _find_regions)
