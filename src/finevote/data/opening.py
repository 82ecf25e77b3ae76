"""Opening all of a data set for a look at it."""

from dataclasses import replace
from pathlib import Path

from finevote.data.registry import open_source
from finevote.errors import DataError
from finevote.types import DataSource


def open_every_split(data: str | Path, *, protocol: str | None = None) -> DataSource:
    """Open train, val and test; where there is no test split, or it is not valid, a note says so.

    Raises:
        ArgumentError, DataError: as `open_source`, for train and val.
    """
    source = open_source(data, splits=("train", "val"), protocol=protocol)
    try:
        test = open_source(data, splits=("test",), protocol=protocol)
    except DataError as error:
        is_absent = str(error).startswith(f"{source.name} has no test images")
        note = "there is no test split, which training does not need" if is_absent else f"the test split: {error}"
        return replace(source, notes=(*source.notes, note))
    notes = tuple(dict.fromkeys((*source.notes, *test.notes)))
    return replace(source, splits={**source.splits, **test.splits}, notes=notes)


def data_argument(data: str | Path, source: DataSource) -> str:
    """Return the argument that opened a source so that it means the same from any working directory."""
    if source.argument is not None:
        return source.argument
    return "synthetic" if data == "synthetic" else str(Path(data).absolute())
