"""The command `finevote calibrate`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finevote.cli_options import DataOption, Run


def calibrate(
    run: Run,
    data: DataOption = None,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="A table of class, parent, grandparent, ... for the bundle; a bundle without takes that of the data.",
        ),
    ] = None,
) -> None:
    """Calibrate a run anew.

    Fits the temperature, the thresholds of sets and those of unknown images to the validation images, at the keep rate
    that the run's bundle has, and keeps them in the bundle.
    """
    from finevote.measure.calibrate import calibrate_run

    before, after, added, saved = calibrate_run(run, data=data, taxonomy=taxonomy)
    typer.echo(f"temperature {after.temperature:.3g} at keep rate {after.keep_rate:g}")
    typer.echo(f"promises rest on {len(after.labels):,} validation images, one of each subject")
    was = "none that can be read" if before is None else f"{before.temperature:.3g} at keep rate {before.keep_rate:g}"
    typer.echo(f"before: {was}")
    if added is not None:
        typer.echo(f"taxonomy: {', '.join(added.levels)}")
    commands = [f"{run}{'' if split == 'val' else f' --split {split}'} --saved" for split in saved] or [str(run)]
    typer.echo("next: " + "\n      ".join(f"finevote evaluate {command}" for command in commands))
