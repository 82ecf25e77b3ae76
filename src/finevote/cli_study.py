"""The commands on several runs. Heavy libraries are imported inside the commands, so that help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import DataOption, SkipBadOption, Split
from finevote.cli_output import print_rich

if TYPE_CHECKING:
    from finevote.study.comparison import Comparison

SplitOption = Annotated[Split, typer.Option(help="Each look at the test split is entered in the runs' ledgers.")]


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


Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name or a YAML file.")]
Data = Annotated[str, typer.Argument(metavar="DATA", help="As for fit.")]
Devices = Annotated[int, typer.Option(min=1, help="Processes to train with, one for each GPU.")]


def sweep(
    recipe: Recipe,
    data: Data,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 5,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE|VALUE", help="Change a setting; with | every alternative is tried."),
    ] = None,
    split: SplitOption = Split.VAL,
    out: Annotated[Path | None, typer.Option(help="The folder; runs/sweep-RECIPE-DATA unless given.")] = None,
    devices: Devices = 1,
    skip_bad: SkipBadOption = False,
) -> None:
    """Train a recipe with several seeds, and with alternatives of settings.

    One table: mean, spread between seeds, intervals, and each alternative beside the first. The same command goes on
    where it was stopped: finished runs are kept, an interrupted one is resumed.
    """
    from finevote.study.sweep import sweep as sweep_recipe

    _, folder = sweep_recipe(
        recipe,
        data,
        num_seeds=seeds,
        settings=settings or (),
        split=split.value,
        out=out,
        devices=devices,
        skip_bad=skip_bad,
        on_comparison=lambda comparison: print_rich(comparison.table()),
    )
    typer.echo(folder)


def ablate(
    recipe: Recipe,
    data: Data,
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 3,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting in every variant.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="VARIANT", help='Train this variant, and full: "no triplet". May be repeated.'),
    ] = None,
    split: SplitOption = Split.VAL,
    out: Annotated[Path | None, typer.Option(help="The folder; runs/ablate-RECIPE-DATA unless given.")] = None,
    devices: Devices = 1,
    skip_bad: SkipBadOption = False,
) -> None:
    """Tell what each mechanism of the method is worth.

    All of them, and one left out at a time: no multi-scale, no voting (plain), no triplet, no merging, no dynamic
    selection, random-init refinement. One table with intervals and paired tests; the same command goes on where it was
    stopped.
    """
    from finevote.study.ablate import ablate as ablate_recipe

    _, folder = ablate_recipe(
        recipe,
        data,
        num_seeds=seeds,
        settings=settings or (),
        only=only or (),
        split=split.value,
        out=out,
        devices=devices,
        skip_bad=skip_bad,
        on_comparison=lambda comparison: print_rich(comparison.table()),
    )
    typer.echo(folder)
