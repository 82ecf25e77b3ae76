"""Oxford Flowers-102 as it is published: imagelabels.mat, setid.mat and jpg/image_00001.jpg onwards."""

from pathlib import Path

from finevote.data.published import Layout, PublishedList, has, raise_bad_rows, read_integers
from finevote.errors import DataError

_LISTS = {"train": "trnid", "val": "valid", "test": "tstid"}


def _is_flowers102(root: Path) -> bool:
    return has(root, "imagelabels.mat", "setid.mat", "jpg")


def _read(root: Path, name: str) -> PublishedList:
    """Return one list; image numbers and labels in the files count from 1. The archive has no names of classes."""
    from torchvision.datasets import Flowers102

    num_classes = len(Flowers102.classes)
    labels = read_integers(root / "imagelabels.mat", "labels")  # by image number
    if min(labels) < 1 or max(labels) > num_classes:
        raise DataError(f"{root / 'imagelabels.mat'} has labels outside 1 to {num_classes}: fetch it again")
    numbers = read_integers(root / "setid.mat", _LISTS[name])
    beyond = [number for number in numbers if not 1 <= number <= len(labels)]
    raise_bad_rows(
        root / "setid.mat", [f"names image {number}, but there are {len(labels)} labels" for number in beyond]
    )
    return Flowers102.classes, [(f"jpg/image_{number:05d}.jpg", labels[number - 1] - 1) for number in numbers]


FLOWERS102 = Layout(_is_flowers102, _read)
