"""From a path, or the word `synthetic`, to a data set: the kind is seen from what is there."""

from collections.abc import Sequence
from pathlib import Path

from finevote.data.flowers102 import is_flowers102, open_flowers102
from finevote.data.folder import open_folder
from finevote.data.hub_argument import is_hub_argument
from finevote.data.items import SPLIT_NAMES
from finevote.data.tables import open_table
from finevote.errors import ArgumentError, DataError, suggest
from finevote.types import DataSource

_TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
_KINDS = (
    "a folder of class folders, a folder with train/ (val/, test/) of class folders, "
    "a CSV with path,label[,split][,group], Flowers-102 as published, or the word synthetic"
)


def open_source(data: str | Path, *, splits: Sequence[str]) -> DataSource:
    """Open the data set at a path, or `synthetic`; only the splits that are asked for are looked at.

    A data set without splits is all "train". "val" is absent if the data set has none (see `with_validation`).

    Args:
        data: where the images are.
        splits: of "train", "val" and "test".

    Raises:
        ArgumentError: an unknown split.
        DataError: nothing is there, it is of no known kind, or its content is not valid.
    """
    unknown = [split for split in splits if split not in SPLIT_NAMES]
    if unknown:
        raise ArgumentError(f"unknown split {unknown[0]!r}{suggest(unknown[0], SPLIT_NAMES)}")
    if data == "synthetic":
        from finevote.data.synthetic import synthetic_source

        return synthetic_source(splits=splits)
    if is_hub_argument(data):
        from finevote.data.hub import open_hub

        return open_hub(str(data), splits=splits)
    return _open_path(Path(data), splits=splits)


def _open_path(path: Path, *, splits: Sequence[str]) -> DataSource:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        if is_folder and is_flowers102(path):
            return open_flowers102(path, splits=splits)
    except PermissionError as error:
        raise DataError(f"cannot look into {path}: {error.strerror}: check its permissions") from None
    if is_folder:
        return open_folder(path, splits=splits)
    if is_file and path.suffix.lower() == ".parquet":
        from finevote.data.parquet import open_parquet

        return open_parquet(path, splits=splits)
    if is_file and path.suffix.lower() in _TABLE_SUFFIXES:
        return open_table(path, splits=splits)
    problem = f"{path} is a file, but not a table ({', '.join(_TABLE_SUFFIXES)})" if is_file else f"{path} is not there"
    raise DataError(f"{problem}: give {_KINDS}")
