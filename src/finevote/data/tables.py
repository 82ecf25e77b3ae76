"""A table of images as text: a CSV file with the columns path, label and, if wanted, split and group."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from finevote.data.items import Item, list_some, source_from_items
from finevote.data.rows import Row, check_columns, items_from_rows
from finevote.errors import DataError
from finevote.types import DataSource

_DELIMITERS = ",;\t"


def open_table(path: Path, *, splits: Sequence[str]) -> DataSource:
    """Open a UTF-8 table separated by commas, semicolons or tabs; image paths are relative to its folder.

    Without a split column every image is in "train". `group` ties photographs of one subject together; an empty one
    stands for a subject of its own. Files are looked for in the splits that are asked for only.

    Raises:
        DataError: unknown or missing columns, bad rows (all reported together), or missing files (likewise).
    """
    return source_from_files(path, items_from_rows(str(path), _read_rows(path), folder=path.parent), splits=splits)


def source_from_files(path: Path, items: Sequence[Item], *, splits: Sequence[str]) -> DataSource:
    """Return the source of a table whose images are files.

    Raises:
        DataError: files are missing (all are counted), or as `source_from_items`.
    """
    missing = [item.image_id for item in items if item.split in splits and item.path and not item.path.is_file()]
    if missing:
        raise DataError(
            f"{path} names {list_some(missing, noun='file')} not found: paths are relative to {path.parent}/"
        )
    return source_from_items(str(path), items, splits=splits)


def _read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows. DictReader puts surplus fields under None and fills gaps with None."""
    reader = _open_reader(path)
    try:
        for fields in reader:
            if None in fields or None in fields.values():
                yield Row(f"line {reader.line_num}", {}, "has another number of fields than the header")
            else:
                values = {column: value.strip() for column, value in fields.items()}
                yield Row(f"line {reader.line_num}", values)
    except csv.Error as error:
        yield Row(f"line {reader.line_num}", {}, f"{error}, so the rest cannot be read")


def read_text(path: Path, *, called: str = "") -> str:
    """Return the text of a UTF-8 file, a byte order mark left out; `called` stands for its path where given.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {called or path}: {error.strerror}") from None


def find_delimiter(text: str) -> str:
    """Return the comma, semicolon or tab that the first line has most of."""
    return max(_DELIMITERS, key=text.partition("\n")[0].count)


def _open_reader(path: Path) -> "csv.DictReader[str]":
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path} is empty: give a header line path,label[,split][,group] and a line for each image")
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=find_delimiter(text))
    columns = [column.strip().lower() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    check_columns(str(path), columns)
    return reader
