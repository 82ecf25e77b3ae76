"""The command `finevote add-class`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import DataOption, Run, SkipBadOption
from finevote.cli_output import print_rich
from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from finevote.added import Added


def add_class(
    run: Run,
    folder: Annotated[
        Path | None,
        typer.Argument(
            readable=False,
            help="A folder with one sub-folder of photographs for each new class; or a folder of photographs, which is "
            "one class of its name.",
            show_default=False,
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was added last.")] = False,
    skip_bad: SkipBadOption = False,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Add classes without training.

    New classes by the mean of their photographs; what the old classes lose is measured on validation images. The
    trained model stays as it is, and --undo takes the classes back.
    """
    if undo and (folder is not None or skip_bad or data is not None):
        raise ArgumentError("--undo takes back what was added last: leave out FOLDER, --skip-bad and --data")
    if not undo and folder is None:
        raise ArgumentError("add-class needs FOLDER, with one sub-folder of photographs for each new class; or --undo")
    from finevote.added import add_classes, take_back

    if folder is None:
        names, left = take_back(run)
        typer.echo(f"taken back: {', '.join(names)}" if names else "what was added last is taken back")
        typer.echo(f"still added: {', '.join(left)}" if left else "the bundle is as it was before any class was added")
        return
    added = add_classes(run, folder, data=data, skip_bad=skip_bad)
    for reason in added.unreadable.values():
        typer.echo(f"skipped: {reason}", err=True)
    if as_json:
        typer.echo(json.dumps(added.figures.to_dict(), indent=2, ensure_ascii=False))
    else:
        _tell(run, added)


def _tell(run: Path, added: Added) -> None:
    print_rich(added.figures.table())
    for note in added.figures.notes():
        typer.echo(f"\n{note}")
    for name in added.alone:
        typer.echo(f"\nWARNING: a single photograph of {name}: nothing tells how well it is named; give ten or more")
    typer.echo(
        "\nwhat was promised of sets, false alarms and errors does not hold with added classes, and is refused\n"
        f"next: finevote predict {run} PHOTOGRAPHS\n"
        f"      finevote add-class {run} --undo    (takes them back)"
    )
