"""The command `finevote soup`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from finevote.cli_options import DataOption
from finevote.cli_output import print_rich


class KindChoice(StrEnum):
    """Which average is kept."""

    GREEDY = "greedy"
    UNIFORM = "uniform"


def soup(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN...", readable=False, file_okay=False, help="Run folders of one recipe."),
    ],
    out: Annotated[
        Path | None, typer.Option(readable=False, help="The new run folder; runs/soup-N unless given.")
    ] = None,
    kind: Annotated[
        KindChoice,
        typer.Option(help="Keep the average of the runs that help on validation, best first, or that of all."),
    ] = KindChoice.GREEDY,
    data: DataOption = None,
) -> None:
    """Average the weights of several runs.

    The result is a run: as fast as one of them, calibrated anew. What it gains is told on the validation images that it
    was chosen on; the test split stays closed.
    """
    from finevote.soup.run import make_soup

    found, path = make_soup(runs, kind=kind.value, out=out, data=data, on_soup=lambda found: print_rich(found.table()))
    kept = found.kept
    typer.echo(f"\n{path}: the {kept.kind} soup of {len(kept.runs)} of {len(found.members)} runs")
    typer.echo(f"next: finevote evaluate {path}\n      finevote evaluate {path} --split test")
