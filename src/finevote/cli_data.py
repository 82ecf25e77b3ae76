"""The commands below `finevote data`. Heavy libraries are imported inside the commands, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_output import check_out, label_table, print_rich
from finevote.errors import ArgumentError, suggest

if TYPE_CHECKING:
    from finevote.types import DataSource, Record

SHEET_IMAGES = 72  # on a contact sheet; more could not be looked at

data_app = typer.Typer(help="Fetch data sets, and look at them before training.", no_args_is_help=True)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder, an archive, a table, a published set by name (see list), hf:OWNER/NAME, or `synthetic`.",
    ),
]
ProtocolOption = Annotated[
    str | None, typer.Option(help="How a published set is divided; the first of its protocols unless given.")
]


@data_app.command("list")
def data_list() -> None:
    """List the published data sets.

    Images are counted under the first protocol of each.
    """
    from rich.table import Table

    from finevote.data.catalogue import DATASETS
    from finevote.data.describe import is_by_hand
    from finevote.data.registry import find_named

    table = Table(
        "  name", "classes", "train", "val", "test", "boxes", "licence", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for number, column in enumerate(table.columns):
        column.justify, column.no_wrap = "right" if 0 < number < 5 else "left", True
    for info in DATASETS.values():
        counts = [info.num_classes, *(info.count(info.protocols[0], split) for split in ("train", "val", "test"))]
        named = find_named(f"{info.name}@")
        mark = "*" if named and named.find() else " "
        boxes = "+".join(filter(None, ("box" if info.subject else "", "parts" if info.parts else "")))
        numbers = [f"{count:,}" if count else "-" for count in counts]
        table.add_row(f"{mark} {info.name}", *numbers, boxes or "-", info.licence)
    print_rich(table)
    by_hand = ", ".join(name for name, info in DATASETS.items() if is_by_hand(info))
    typer.echo(f"* is here; others: finevote data get NAME (files to be brought by hand: {by_hand})")


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="A name of `finevote data list`.", show_default=False)],
    root: Annotated[
        Path | None, typer.Option(file_okay=False, help="The folder of all sets; ~/.local/share/finevote unless given.")
    ] = None,
) -> None:
    """Fetch a published data set.

    Files that are there are verified and kept. Every split is opened to see that it is whole.
    """
    from finevote.data.catalogue import DATASETS
    from finevote.data.registry import find_named, get_complete

    named = find_named(name if "@" in name else f"{name}@{root or ''}")
    if named is None:
        raise ArgumentError(f"no published data set is called {name!r}{suggest(name.partition('@')[0], DATASETS)}")
    if "@" in name and root is not None:
        raise ArgumentError(f"{name} and --root {root} both name a folder: leave out one")
    for source in get_complete(named):
        typer.echo(f"{named.info.name}, protocol {source.protocol}: {_describe_counts(source)}")
    typer.echo(named.find())


@data_app.command("info")
def data_info(data: Data, protocol: ProtocolOption = None) -> None:
    """Tell everything known of a data set.

    Of a published one: protocols, licence, source, files, what to mind. Of a path: what is seen there.
    """
    from finevote.data.describe import describe_published, describe_source
    from finevote.data.opening import open_every_split
    from finevote.data.published import choose_protocol
    from finevote.data.registry import find_named, recognise

    named = find_named(data)
    if named is not None:
        choose_protocol(named.info.protocols, protocol, name=named.info.name)
        print_rich(label_table(describe_published(named)))
        return
    source = open_every_split(data, protocol=protocol)
    found = recognise(Path(data))
    print_rich(label_table(describe_source(source, published=found[0] if found else None)))


@data_app.command("show")
def data_show(
    data: Data,
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("contact_sheet.png"),
    per_class: Annotated[int, typer.Option(min=1, help="Training images to draw of each class.")] = 3,
    protocol: ProtocolOption = None,
) -> None:
    """Count and draw a data set.

    Classes, images of each split, and a contact sheet of training images with what has boxes boxed.
    """
    check_out(out, (".png",))
    from finevote.data.opening import open_every_split
    from finevote.explanation.figures import contact_sheet, save_figure

    source = open_every_split(data, protocol=protocol)
    divided = f", protocol {source.protocol}" if source.protocol else ""
    typer.echo(f"{source.name}{divided}: {_describe_counts(source)}")
    for note in source.notes:
        typer.echo(note)
    records = _sheet_records(source, per_class)
    num_drawn = len({record.label for record in records})
    sheet = contact_sheet(
        [source.read(record) for record in records],
        [source.class_names[record.label] for record in records],
        [source.regions(record).boxes() for record in records],
        title=f"{source.name}: {num_drawn} of {len(source.class_names)} classes{divided}",
        num_columns=6,
    )
    typer.echo(save_figure(sheet, out))


@data_app.command("audit")
def data_audit(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="The folder for audit.json and audit.png; audit-NAME unless given.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Judge labels and likeness by this backbone's embeddings.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A file or hub name with its weights; the published ones unless given.")
    ] = None,
    protocol: ProtocolOption = None,
) -> None:
    """Look for what is wrong with a data set.

    Copies of pictures within and across splits, odd and unreadable images, groups in two splits, uneven classes, and
    labels that are likely wrong. Every split is opened, the test split too, but nothing is measured on it. Without
    --backbone labels are judged by features that need no weights.
    """
    from finevote.audit.report import audit_table
    from finevote.audit.run import REPORT_NAME, SHEET_NAME, audit

    found, folder = audit(data, protocol=protocol, out=out, backbone=backbone, weights=weights)
    print_rich(audit_table(found))
    typer.echo("every split was opened, the test split too; nothing was measured on it")
    for name in (REPORT_NAME, SHEET_NAME):
        if (folder / name).exists():
            typer.echo(folder / name)


def _describe_counts(source: DataSource) -> str:
    counts = ", ".join(f"{len(records):,} {split}" for split, records in source.splits.items())
    return f"{len(source.class_names)} classes; images: {counts}"


def _sheet_records(source: DataSource, per_class: int) -> list[Record]:
    """Return up to `per_class` training records of each class, of evenly spread classes if all are too many."""
    num_drawn = max(1, min(len(source.class_names), SHEET_IMAGES // per_class))
    labels = [number * len(source.class_names) // num_drawn for number in range(num_drawn)]
    by_class: dict[int, list[Record]] = {label: [] for label in labels}
    for record in source.splits["train"]:
        if len(by_class.get(record.label, range(per_class))) < per_class:
            by_class[record.label].append(record)
    return [record for records in by_class.values() for record in records]
