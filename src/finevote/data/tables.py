"""A table of images: a CSV file with the columns path, label and, if wanted, split and group."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from finevote.data.items import NUM_LISTED, SPLIT_ALIASES, Item, list_some, plain_name, source_from_items
from finevote.errors import DataError
from finevote.types import DataSource

_NEEDED = ("path", "label")
_COLUMNS = (*_NEEDED, "split", "group")
_DELIMITERS = ",;\t"


def open_table(path: Path, *, splits: Sequence[str]) -> DataSource:
    """Open a UTF-8 table separated by commas, semicolons or tabs; image paths are relative to its folder.

    Without a split column every image is in "train". `group` ties photographs of one subject together; an empty one
    stands for a subject of its own. Files are looked for in the splits that are asked for only.

    Raises:
        DataError: unknown or missing columns, bad rows (all reported together), or missing files (likewise).
    """
    items = _read_items(path)
    missing = [item.image_id for item in items if item.split in splits and not item.path.is_file()]
    if missing:
        raise DataError(
            f"{path} names {list_some(missing, noun='file')} not found: paths are relative to {path.parent}/"
        )
    return source_from_items(str(path), items, splits=splits)


def _read_items(path: Path) -> list[Item]:
    reader = _open_reader(path)
    items: list[Item] = []
    problems: list[str] = []
    seen: set[str] = set()
    try:
        for row in reader:
            problem = _problem(row, seen)
            if problem:
                problems.append(f"line {reader.line_num}: {problem}")
            else:
                items.append(_item(path.parent, row))
                seen.add(items[-1].image_id)
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}, so the rest cannot be read")
    if problems:
        shown = "; ".join(problems[:NUM_LISTED])
        raise DataError(f"{path}, bad rows ({len(problems)}): {shown}{'; ...' if len(problems) > NUM_LISTED else ''}")
    return items


def _open_reader(path: Path) -> "csv.DictReader[str]":
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    if not text.strip():
        raise DataError(f"{path} is empty: give a header line path,label[,split][,group] and a line for each image")
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [column.strip().lower() for column in reader.fieldnames or ()]
    reader.fieldnames = columns
    _check_columns(path, columns)
    return reader


def _check_columns(path: Path, columns: list[str]) -> None:
    unknown = [column for column in columns if column not in _COLUMNS]
    missing = [column for column in _NEEDED if column not in columns]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if unknown or missing or twice:
        parts = [
            f"unknown columns {', '.join(map(repr, unknown))}" if unknown else "",
            f"no column {', '.join(map(repr, missing))}" if missing else "",
            f"columns given twice: {', '.join(twice)}" if twice else "",
        ]
        raise DataError(f"{path} has {' and '.join(filter(None, parts))}; allowed: path, label[, split][, group]")


def _problem(row: dict[str, str], seen: set[str]) -> str | None:
    """Return what is wrong with a row, or None. DictReader puts surplus fields under None and fills gaps with None."""
    if None in row or None in row.values():
        return "has another number of fields than the header"
    values = {column: value.strip() for column, value in row.items()}
    blank = [column for column in (*_NEEDED, "split") if values.get(column) == ""]
    if blank:
        return f"blank {' and '.join(blank)}"
    if values.get("split", "train").lower() not in SPLIT_ALIASES:
        return f"split {values['split']!r} is none of train, val, test"
    if _image_id(values["path"]) in seen:
        return f"{values['path']} is listed a second time"
    return None


def _item(folder: Path, row: dict[str, str]) -> Item:
    values = {column: value.strip() for column, value in row.items()}
    return Item(
        image_id=_image_id(values["path"]),
        path=folder / values["path"],
        class_name=plain_name(values["label"]),
        split=SPLIT_ALIASES[values.get("split", "train").lower()],
        group=values.get("group") or None,
    )


def _image_id(path: str) -> str:
    return plain_name(Path(path).as_posix())
