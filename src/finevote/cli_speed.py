"""The command `finevote tune-speed`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import DataOption
from finevote.cli_output import print_rich
from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from finevote.tune_speed import SpeedCurve


def tune_speed(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", readable=False, file_okay=False, help="A run that `finevote fit` finished.")
    ],
    max_drop: Annotated[float, typer.Option(help="Points of accuracy on validation that speed may cost.")] = 0.2,
    rates: Annotated[str, typer.Option(help="Keep rates to measure.")] = "1.0,0.9,0.8,0.7,0.6,0.5,0.4",
    data: DataOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of a timed forward pass.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and print; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Choose how many patches a run needs.

    Measures accuracy on validation and the time of a forward pass with fewer and fewer patches, and makes the fastest
    keep rate within the tolerance the bundle's own, which predict and evaluate then use.
    """
    wanted = _read_rates(rates)
    from finevote.tune_speed import tune_speed as tune

    def show(curve: SpeedCurve) -> None:
        if as_json:
            typer.echo(json.dumps(curve.to_dict(), indent=2))
        else:
            print_rich(curve.table())

    tune(run, max_drop=max_drop, rates=wanted, data=data, batch_size=batch_size, dry_run=dry_run, on_curve=show)


def _read_rates(text: str) -> list[float]:
    try:
        return [float(rate) for rate in text.split(",")]
    except ValueError:
        raise ArgumentError(f"--rates {text!r} must be numbers with commas between, e.g. 1.0,0.7,0.5") from None
