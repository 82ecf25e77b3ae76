"""The commands below `finevote data`. Heavy libraries are imported inside the commands, so that help is quick."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_output import check_out
from finevote.errors import DataError

if TYPE_CHECKING:
    from finevote.types import DataSource, Record

SHEET_IMAGES = 72  # on a contact sheet; more could not be looked at

data_app = typer.Typer(help="Look at a data set before training.", no_args_is_help=True)


@data_app.command("show")
def data_show(
    data: Annotated[
        str, typer.Argument(help="What `finevote fit` takes: a folder, an archive, a table, a name or `synthetic`.")
    ],
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("contact_sheet.png"),
    per_class: Annotated[int, typer.Option(min=1, help="Training images to draw of each class.")] = 3,
) -> None:
    """Count and draw a data set.

    Classes, images of each split, and a contact sheet of training images with their known parts boxed.
    """
    check_out(out, (".png",))
    from finevote.explanation.figures import contact_sheet, save_figure

    source = _open_all_splits(data)
    counts = ", ".join(f"{len(records)} {split}" for split, records in source.splits.items())
    typer.echo(f"{source.name}: {len(source.class_names)} classes; images: {counts}")
    for note in source.notes:
        typer.echo(note)
    records = _sheet_records(source, per_class)
    sheet = contact_sheet(
        [source.read(record) for record in records],
        [source.class_names[record.label] for record in records],
        [source.regions(record).parts for record in records],
        title=f"{source.name}: {len({record.label for record in records})} of {len(source.class_names)} classes",
        num_columns=6,
    )
    typer.echo(save_figure(sheet, out))


def _open_all_splits(data: str) -> DataSource:
    """Open train, val and test; where there is no test split, or it is not valid, a note says so."""
    from finevote.data.registry import open_source

    try:
        return open_source(data, splits=("train", "val", "test"))
    except DataError as error:
        source = open_source(data, splits=("train", "val"))
        is_absent = str(error).startswith(f"{source.name} has no test images")
        note = "there is no test split, which training does not need" if is_absent else f"the test split: {error}"
        return replace(source, notes=(*source.notes, note))


def _sheet_records(source: DataSource, per_class: int) -> list[Record]:
    """Return up to `per_class` training records of each class, of evenly spread classes if all are too many."""
    num_drawn = max(1, min(len(source.class_names), SHEET_IMAGES // per_class))
    labels = [number * len(source.class_names) // num_drawn for number in range(num_drawn)]
    by_class: dict[int, list[Record]] = {label: [] for label in labels}
    for record in source.splits["train"]:
        if len(by_class.get(record.label, range(per_class))) < per_class:
            by_class[record.label].append(record)
    return [record for records in by_class.values() for record in records]
