"""Data sets of the Hugging Face hub, and local folders in its formats: columns found, rows made into records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finevote.data.arrow_columns import (
    check_image_column,
    choose_column,
    file_identity,
    image_columns,
    image_paths,
    label_columns,
    read_image_cell,
    read_texts,
)
from finevote.data.hub_argument import SPLIT_OPTIONS, HubArgument, parse_hub_argument
from finevote.data.hub_load import load_tables
from finevote.data.images import read_record
from finevote.data.items import SPLIT_ALIASES, Item, source_from_items
from finevote.data.rows import Row, items_from_rows
from finevote.errors import ArgumentError, DataError, suggest

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from PIL import Image

    from finevote.types import DataSource, Record


class Columns(NamedTuple):
    """Which columns are used."""

    image: str
    label: str
    group: str | None


def open_hub(data: str, *, splits: Sequence[str]) -> DataSource:
    """Open a data set of the hub, `hf:owner/name[:config]`, or a local folder in one of its formats, `hf:./folder`.

    Only the splits that are asked for are opened, and train, which names the classes. Columns are found by their
    declared types, those called `image`, `label` and `group` first; `,label=fine_label` behind the name chooses
    another, `,train=full` another split.

    Raises:
        ArgumentError: the argument is not of that form.
        DataError: there is no such set, it cannot be fetched or read, columns or splits cannot be told, or rows are
            bad (all reported together).
        MissingExtraError: the library is not installed.
        StorageError: the disk is full.
    """
    argument = parse_hub_argument(data)
    loaded = load_tables(argument)
    names = map_splits(argument, loaded.split_names)
    tables = {split: loaded.open(name) for split, name in names.items() if split == "train" or split in splits}
    columns = choose_columns(argument, tables["train"].features.arrow_schema)
    identities = {split: _identity(split, table) for split, table in tables.items()}
    notes = _notes(loaded.split_names, names, tables["train"].column_names, columns)
    source = source_from_items(
        argument.name,
        [item for split, table in tables.items() for item in _items(argument, split, table, columns, identities)],
        splits=splits,
        notes=[*notes, *([f"revision {loaded.revision}"] if loaded.revision else [])],
        read=HubImages(argument.name, {identities[split]: _images(table, columns) for split, table in tables.items()}),
    )
    pinned = replace(argument.absolute(), revision=loaded.revision)
    return replace(source, argument=str(pinned))


@dataclass(frozen=True)
class HubImages:
    """Reads the image of a record; a plain value, so that loader processes can take it along.

    `tables` has the images of each split as its only column, under the split's identity.
    """

    name: str
    tables: Mapping[str, Dataset]

    def __call__(self, record: Record) -> Image.Image:
        """Return the image as RGB, upright. Raises DataError if it cannot be read."""
        if record.cell is None:
            return read_record(record)
        identity, _, row = record.cell.rpartition("/")
        place = f"{record.image_id} of {self.name}"
        try:
            cell = self.tables[identity][int(row)].column(0)[0]
        except Exception as error:  # a parser of broken files may raise anything at all
            raise DataError(f"cannot read the image {place}: {error}") from error
        return read_image_cell(cell, place=place)


def map_splits(argument: HubArgument, found: Sequence[str]) -> dict[str, str]:
    """Return {our split: the set's own}, chosen by the argument or told by their usual names.

    Raises:
        ArgumentError: one split is chosen twice.
        DataError: a chosen split is not there, none is for training, or several may be the same one.
    """
    chosen = {split: name for split in SPLIT_OPTIONS if (name := getattr(argument, split)) is not None}
    for name in chosen.values():
        if name not in found:
            raise DataError(f"{argument.name} has no split {name!r}{suggest(name, found)}")
    names = dict(chosen)
    for name in found:
        split = SPLIT_ALIASES.get(name.lower())
        if split is None or split in chosen or name in chosen.values():
            continue
        if split in names:
            raise DataError(f"{argument.name} has both {names[split]} and {name}: choose one with ,{split}={name}")
        names[split] = name
    if "train" not in names:
        listed = ", ".join(found) or "none"
        raise DataError(f"{argument.name} has no split to train on; its splits: {listed}: choose one with ,train=NAME")
    if len(set(names.values())) < len(names):
        raise ArgumentError(f"{argument} uses one split as two: training images must not be measured on")
    return names


def choose_columns(argument: HubArgument, schema: pa.Schema) -> Columns:
    """Return the columns to use.

    Raises:
        DataError: a chosen one is not there or of a wrong type, or none or several may be meant.
    """

    def choose(role: str, wanted: str | None, candidates: Sequence[str]) -> str:
        how = f"{argument.name},{role}=COLUMN"
        return choose_column(candidates, role=role, wanted=wanted, schema=schema, source=argument.name, how=how)

    group = argument.group or ("group" if "group" in schema.names else None)
    if group is not None:
        choose("group", group, ())
    image = choose("image", argument.image, image_columns(schema))
    check_image_column(schema, image, source=argument.name)
    return Columns(image, choose("label", argument.label, label_columns(schema, others=(image, group))), group)


def _items(
    argument: HubArgument, split: str, table: Dataset, columns: Columns, identities: Mapping[str, str]
) -> Iterator[Item]:
    """Yield the images of a split, named by their paths below a local folder, or by split and row."""
    paths = image_paths(table.data.column(columns.image))
    items = items_from_rows(argument.name, _rows(argument, split, table, columns))
    root = Path(argument.place).expanduser().resolve()
    for row, (item, path) in enumerate(zip(items, paths, strict=True)):
        if path is None:
            yield item._replace(cell=f"{identities[split]}/{row}")
        elif argument.is_local and path.is_relative_to(root):
            yield item._replace(path=path, image_id=path.relative_to(root).as_posix())
        else:
            yield item._replace(path=path)


def _rows(argument: HubArgument, split: str, table: Dataset, columns: Columns) -> Iterator[Row]:
    schema = table.features.arrow_schema

    def texts(name: str) -> list[str]:
        return read_texts(table.data.column(name), schema, name, source=argument.name)

    labels = texts(columns.label)
    if labels and not any(labels):
        raise DataError(f"{argument.name}: no image of the {split} split has a label, as where they are kept secret")
    groups = [""] * len(labels) if columns.group is None else texts(columns.group)
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        values = {"label": label.strip(), "split": split, "group": group.strip()}
        yield Row(f"{split}/{row}", values)


def _images(table: Dataset, columns: Columns) -> Dataset:
    return table.select_columns([columns.image]).with_format("arrow")


def _identity(split: str, table: Dataset) -> str:
    return f"{file_identity([Path(file['filename']) for file in table.cache_files])}/{split}"


def _notes(found: Sequence[str], names: Mapping[str, str], columns: Sequence[str], used: Columns) -> list[str]:
    other_splits = [name for name in found if name not in names.values()]
    other_columns = [name for name in columns if name not in used]
    notes = [f"splits not used: {', '.join(other_splits)}"] if other_splits else []
    return [*notes, f"columns not used: {', '.join(other_columns)}"] if other_columns else notes
