"""The commands on several runs together. Heavy libraries are imported inside the commands, so that help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_output import Split, print_rich

if TYPE_CHECKING:
    from finevote.study.comparison import Comparison

SplitOption = Annotated[Split, typer.Option(help="Each look at the test split is entered in the runs' ledgers.")]
DataOption = Annotated[str | None, typer.Option(help="Where the data set lies now, if it has moved.")]


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", readable=False, help="The first is compared with the others.")
    ],
    split: SplitOption = Split.VAL,
    data: DataOption = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; runs/compare-N unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Tell whether one run is better than another.

    On the same images: exact test, interval of the difference, classes gained and lost, pictures of what flipped. Runs
    that differ in their seeds alone are taken together. Runs on different splits are refused.
    """
    from finevote.study.compare import compare as compare_runs

    def show(comparison: Comparison) -> None:
        if as_json:
            typer.echo(json.dumps(comparison.to_dict(), indent=2))
        else:
            print_rich(comparison.table())

    _, folder = compare_runs(runs, split=split.value, data=data, out=out, on_comparison=show)
    typer.echo(folder, err=as_json)
