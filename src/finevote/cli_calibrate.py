"""The command `finevote calibrate`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

import typer

from finevote.cli_options import DataOption, Run


def calibrate(run: Run, data: DataOption = None) -> None:
    """Calibrate a run anew.

    Fits the temperature, the thresholds of sets and those of unknown images to the validation images, at the keep rate
    that the run's bundle has, and keeps them in the bundle.
    """
    from finevote.measure.calibrate import calibrate_run

    before, after = calibrate_run(run, data=data)
    was = "not calibrated before" if before is None else f"{before.temperature:.3g} at keep rate {before.keep_rate:g}"
    typer.echo(
        f"temperature {after.temperature:.3g} at keep rate {after.keep_rate:g} ({was}), by {len(after.labels):,} "
        f"validation images\nnext: finevote evaluate {run} --saved"
    )
