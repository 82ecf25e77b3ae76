"""The command `finevote similarity`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import DataOption, Run, Split, SplitOption
from finevote.cli_output import print_rich

if TYPE_CHECKING:
    from finevote.similarity.findings import Similarity

NUM_IMAGES = 1000


def similarity(
    run: Run,
    split: SplitOption = Split.VAL,
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=4, help="How many images of the split to look at, at most.")] = NUM_IMAGES,
    out: Annotated[Path | None, typer.Option(help="The folder to write; similarity/ of the run unless given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Tell how alike a run's layers are.

    By centred kernel alignment; and how the budget of tokens moved over training, and which layers and heads carry the
    votes. Writes plots and all numbers.
    """
    from finevote.similarity.run import measure_similarity

    def show(found: Similarity) -> None:
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=2))
        else:
            print_rich(found.table())

    _, folder = measure_similarity(run, split=split.value, data=data, num_images=images, out=out, on_found=show)
    typer.echo(folder, err=as_json)
