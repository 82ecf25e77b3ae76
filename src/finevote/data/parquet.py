"""Parquet tables of images: paths of files, or the encoded images themselves in a column `image`."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from finevote.data.arrow_columns import (
    check_image_column,
    file_identity,
    import_pyarrow,
    read_image_cell,
    read_texts,
)
from finevote.data.images import read_record
from finevote.data.items import source_from_items
from finevote.data.rows import COLUMNS, Row, check_columns, items_from_rows
from finevote.data.tables import source_from_files
from finevote.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image
    from pyarrow.parquet import ParquetFile

    from finevote.types import DataSource, Record

IMAGE_COLUMN = "image"
MAX_GROUP_BYTES = 2**29  # of images in one row group, which is read as a whole
_INDEX_PREFIX = "__index_level_"  # of columns that pandas adds by itself
_KEPT_BYTES = 2**28  # of row groups in the memory of each process


def open_parquet(path: Path, *, splits: Sequence[str]) -> DataSource:
    """Open a table with the columns of a CSV, or with the images in a column `image` in place of paths.

    That column holds bytes, or a struct of bytes and path, as the hub's library writes it. Then `path`, if there,
    names the images, and other columns are passed over with a note.

    Raises:
        DataError: it is no Parquet table, columns are missing or of a wrong type, rows are bad (all reported
            together), or row groups are too large to read from one by one.
        MissingExtraError: pyarrow is not installed.
    """
    with _open_file(path) as file:
        names = [name for name in file.schema_arrow.names if not name.startswith(_INDEX_PREFIX)]
        if IMAGE_COLUMN not in names:
            check_columns(str(path), names)
            items = items_from_rows(str(path), _read_rows(path, file, names), folder=path.parent)
            return source_from_files(path, items, splits=splits)
        used = [name for name in names if name in COLUMNS]
        check_columns(str(path), [IMAGE_COLUMN, *used], needed=(IMAGE_COLUMN, "label"))
        check_image_column(file.schema_arrow, IMAGE_COLUMN, source=str(path))
        _check_groups(path, file)
        items = items_from_rows(str(path), _read_rows(path, file, used))
    identity = file_identity([path])
    unused = [name for name in names if name not in (IMAGE_COLUMN, *used)]
    return source_from_items(
        str(path),
        [item._replace(cell=f"{identity}/{row}") for row, item in enumerate(items)],
        splits=splits,
        notes=[f"columns not used: {', '.join(unused)}"] if unused else [],
        read=ParquetImages(path),
    )


class ParquetImages:
    """Reads the image of a record from its row group; threads and loader processes can share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: _RowGroups | None = None

    def __call__(self, record: Record) -> Image.Image:
        """Return the image as RGB, upright. Raises DataError if it cannot be read."""
        if record.cell is None:
            return read_record(record)
        row = int(record.cell.rpartition("/")[2])
        place = f"in row {row} of {self.path}"
        try:
            cell = self._of_this_process().cell(row)
        except Exception as error:  # a parser of broken files may raise anything at all
            raise DataError(f"cannot read the image {place}: {_reason(error)}") from error
        return read_image_cell(cell, place=place)

    def __reduce__(self) -> tuple[type[ParquetImages], tuple[Path]]:
        return ParquetImages, (self.path,)

    def _of_this_process(self) -> _RowGroups:
        groups = self._groups
        if groups is None or groups.owner != os.getpid():  # a fork copies locks that may be held
            groups = self._groups = _RowGroups(self.path)
        return groups


class _RowGroups:
    """The images of a table, read one row group at a time; those read last stay in memory."""

    def __init__(self, path: Path) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.file = _open_file(path)
        metadata = self.file.metadata
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self.starts = list(accumulate(sizes, initial=0))
        self.kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def cell(self, row: int) -> pa.Scalar:
        number = bisect_right(self.starts, row) - 1
        with self.lock:
            return self._group(number)[row - self.starts[number]]

    def _group(self, number: int) -> pa.ChunkedArray:
        column = self.kept.pop(number, None)
        if column is None:
            column = self.file.read_row_group(number, columns=[IMAGE_COLUMN], use_threads=False).column(0)
        self.kept[number] = column  # the last used stands last
        while len(self.kept) > 1 and sum(group.nbytes for group in self.kept.values()) > _KEPT_BYTES:
            self.kept.popitem(last=False)
        return column


def _open_file(path: Path) -> ParquetFile:
    pa = import_pyarrow()
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path)
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet table: {_reason(error)}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def _read_rows(path: Path, file: ParquetFile, columns: Sequence[str]) -> Iterator[Row]:
    try:
        table = file.read(columns=list(columns), use_threads=False)
    except Exception as error:  # a parser of broken files may raise anything at all
        raise DataError(f"cannot read {path}: {_reason(error)}") from error
    schema = file.schema_arrow
    texts = [read_texts(table.column(name), schema, name, source=str(path)) for name in columns]
    for number, values in enumerate(zip(*texts, strict=True)):
        yield Row(f"row {number}", {name: text.strip() for name, text in zip(columns, values, strict=True)})


def _check_groups(path: Path, file: ParquetFile) -> None:
    metadata = file.metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = [group.column(index) for index in range(group.num_columns)]
        size = sum(c.total_uncompressed_size for c in columns if c.path_in_schema.split(".")[0] == IMAGE_COLUMN)
        if size > MAX_GROUP_BYTES:
            raise DataError(
                f"{path}: row group {number} holds {size / 2**20:,.0f} MiB of images, and one is read as a whole; "
                f"allowed are {MAX_GROUP_BYTES / 2**20:,.0f} MiB: write the table with row_group_size=100, or put it "
                "into a folder of its own and give hf:./FOLDER, which makes a copy to read single rows from"
            )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
