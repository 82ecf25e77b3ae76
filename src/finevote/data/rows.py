"""Rows of text that name labelled images, checked and turned into items; the same for every kind of table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from finevote.data.items import NUM_LISTED, SPLIT_ALIASES, Item, plain_name
from finevote.errors import DataError

NEEDED = ("path", "label")
COLUMNS = (*NEEDED, "split", "group")


class Row(NamedTuple):
    """A row as it was read: where it stands, its values by column ("" where blank), or why it cannot be read."""

    place: str
    values: Mapping[str, str]
    problem: str | None = None


def check_columns(source: str, columns: Sequence[str], *, needed: Sequence[str] = NEEDED) -> None:
    """Raise DataError unless there are the needed columns, each once, and beside them nothing but `COLUMNS`."""
    unknown = [column for column in columns if column not in (*COLUMNS, *needed)]
    missing = [column for column in needed if column not in columns]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if unknown or missing or twice:
        parts = [
            f"unknown columns {', '.join(map(repr, unknown))}" if unknown else "",
            f"no column {', '.join(map(repr, missing))}" if missing else "",
            f"columns given twice: {', '.join(twice)}" if twice else "",
        ]
        allowed = f"{', '.join(needed)}[, split][, group]"
        raise DataError(f"{source} has {' and '.join(filter(None, parts))}; allowed: {allowed}")


def items_from_rows(source: str, rows: Iterable[Row], *, folder: Path | None = None) -> list[Item]:
    """Return an item for each row. Those with a path are named by it, others by their place.

    Args:
        source: the table, for messages.
        rows: with `label` and, if wanted, `path`, `split` ("train" unless given) and `group`.
        folder: what paths are relative to; None: the images are not files.

    Raises:
        DataError: rows are bad (all are counted, the first ten told).
    """
    items: list[Item] = []
    problems: list[str] = []
    seen: set[str] = set()
    for row in rows:
        problem = row.problem or _problem(row.values, seen)
        if problem:
            problems.append(f"{row.place}: {problem}")
        else:
            items.append(_item(row, folder))
            seen.add(items[-1].image_id)
    if problems:
        shown = "; ".join(problems[:NUM_LISTED])
        raise DataError(f"{source}, bad rows ({len(problems)}): {shown}{'; ...' if len(problems) > NUM_LISTED else ''}")
    return items


def _problem(values: Mapping[str, str], seen: set[str]) -> str | None:
    blank = [column for column in (*NEEDED, "split") if values.get(column) == ""]
    if blank:
        return f"blank {' and '.join(blank)}"
    if values.get("split", "train").lower() not in SPLIT_ALIASES:
        return f"split {values['split']!r} is none of train, val, test"
    if "path" in values and _image_id(values["path"]) in seen:
        return f"{values['path']} is listed a second time"
    return None


def _item(row: Row, folder: Path | None) -> Item:
    values = row.values
    return Item(
        image_id=_image_id(values["path"]) if "path" in values else row.place,
        path=folder / values["path"] if folder is not None else None,
        class_name=plain_name(values["label"]),
        split=SPLIT_ALIASES[values.get("split", "train").lower()],
        group=values.get("group") or None,
    )


def _image_id(path: str) -> str:
    return plain_name(Path(path).as_posix())
