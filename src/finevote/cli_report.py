"""The command `finevote report`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finevote.cli_options import DataOption, Split, SplitOption
from finevote.cli_output import check_out
from finevote.errors import ArgumentError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [RUN...]", readable=False, help="A run folder; the first is compared with others."),
    ],
    split: SplitOption = Split.VAL,
    out: Annotated[
        Path | None, typer.Option(help="The .html file; report.html in the run, or in runs/compare-N, unless given.")
    ] = None,
    data: DataOption = None,
    ablation: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="The folder of an ablation or sweep to show too; the one that the run is of, else."
        ),
    ] = None,
) -> None:
    """Write all that is known of a run as one HTML file, to read and to mail.

    Accuracy with its interval, what it is held against, what is mixed up, with photographs and votes, every class,
    calibration, training, settings. A split that has not been measured is measured first. Several runs are compared.
    """
    if out is not None:
        check_out(out, (".html", ".htm"))
    if len(runs) == 1:
        from finevote.report.run import write_report

        written = write_report(runs[0], split=split.value, data=data, out=out, ablation=ablation)
    else:
        if ablation is not None:
            raise ArgumentError("--ablation stands beside one run: leave it out, or give one run")
        from finevote.report.compared import write_comparison

        written = write_comparison(runs, split=split.value, data=data, out=out)
    typer.echo(f"{written.path} ({describe_size(written.num_bytes)})")


def report_of_fit(run: Path) -> None:
    """Write the report of a run that has just been trained, on its validation split where it has one.

    Whatever goes wrong is a warning: the run is there, and nothing of it is lost.
    """
    from finevote.run_folder import RunFolder

    folder = RunFolder(run)
    try:
        if "val" not in folder.read_json(folder.split_json)["splits"]:
            return
        from finevote.report.run import write_report

        written = write_report(run)
    except Exception as error:  # noqa: BLE001  # no mistake in a report may look like one of the training
        reason = " ".join(str(error).splitlines())
        typer.echo(f"warning: the report is left out ({reason}): finevote report {run}", err=True)
    else:
        typer.echo(f"report: {written.path} ({describe_size(written.num_bytes)})")


def describe_size(num_bytes: int) -> str:
    """Return a size in kilobytes or megabytes."""
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"
