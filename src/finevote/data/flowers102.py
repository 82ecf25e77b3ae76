"""Oxford Flowers-102 as it is published: imagelabels.mat, setid.mat and jpg/image_00001.jpg onwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finevote.data.images import read_record
from finevote.data.items import check_asked, list_some
from finevote.errors import DataError
from finevote.types import DataSource, Record

_SPLIT_KEYS = {"train": "trnid", "val": "valid", "test": "tstid"}


def is_flowers102(root: Path) -> bool:
    """Tell whether `root` has the files of the official layout."""
    return (root / "imagelabels.mat").is_file() and (root / "setid.mat").is_file() and (root / "jpg").is_dir()


def open_flowers102(root: Path, *, splits: Sequence[str]) -> DataSource:
    """Open the official splits; image numbers and labels in the files count from 1, labels here from 0.

    Raises:
        DataError: a .mat file is broken, or images of the asked-for splits are missing (all of them are counted).
    """
    from torchvision.datasets import Flowers102

    class_names = tuple(str(name) for name in Flowers102.classes)
    labels = _read_mat(root / "imagelabels.mat", ["labels"])["labels"]  # (num_images,), 1-based classes
    numbers = _read_mat(root / "setid.mat", [_SPLIT_KEYS[split] for split in splits])
    if labels.min() < 1 or labels.max() > len(class_names):
        raise DataError(f"{root / 'imagelabels.mat'} has labels outside 1 to {len(class_names)}: fetch it again")
    found = {
        split: tuple(_record(root, number, labels) for number in np.sort(numbers[_SPLIT_KEYS[split]]).tolist())
        for split in splits
        if numbers[_SPLIT_KEYS[split]].size
    }
    check_asked(str(root), found, splits)
    _check_files(root, found)
    return DataSource(str(root), class_names, found, read_record)


def _record(root: Path, number: int, labels: np.ndarray) -> Record:
    if not 1 <= number <= labels.size:
        raise DataError(
            f"{root / 'setid.mat'} names image {number}, but there are {labels.size} labels: fetch it again"
        )
    name = f"jpg/image_{number:05d}.jpg"
    return Record(name, int(labels[number - 1]) - 1, root / name)


def _read_mat(path: Path, keys: list[str]) -> dict[str, np.ndarray]:
    """Return the named arrays of a MATLAB file, flat and int64; others in it are not read."""
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(path), variable_names=keys)
        return {key: content[key].ravel().astype(np.int64) for key in keys}
    except KeyError as error:
        raise DataError(f"{path} has no array {error}: fetch the file again") from None
    except Exception as error:  # a parser of broken files may raise anything at all
        raise DataError(f"cannot read {path}: {error}: fetch the file again") from error


def _check_files(root: Path, splits: dict[str, tuple[Record, ...]]) -> None:
    missing = [
        record.image_id
        for records in splits.values()
        for record in records
        if record.path is None or not record.path.is_file()
    ]
    if missing:
        raise DataError(f"{root} lacks {list_some(missing, noun='image')}: unpack 102flowers.tgz again")
