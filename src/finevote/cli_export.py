"""The command `finevote export`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finevote.cli_options import DataOption, Run
from finevote.errors import ArgumentError
from finevote.export.choices import DEFAULT_OPSET, MAX_DROP, MIN_AGREEMENT, Format, Precision


def export(
    run: Run,
    format: Annotated[  # noqa: A002  # as the option is called
        Format, typer.Option(help="ONNX, which runs without torch, or a program of torch.export.")
    ] = Format.ONNX,
    precision: Annotated[
        Precision, typer.Option(help="Smaller numbers run faster where the processor has them.")
    ] = Precision.FP32,
    opset: Annotated[int, typer.Option(help="Version of ONNX's operators.")] = DEFAULT_OPSET,
    out: Annotated[
        Path | None, typer.Option(readable=False, help="The file; RUN/export/model-PRECISION unless given.")
    ] = None,
    data: DataOption = None,
    max_drop: Annotated[float, typer.Option(help="Points of accuracy on validation that fp16 or int8 may cost.")] = 100
    * MAX_DROP,
    min_agreement: Annotated[
        float, typer.Option(help="Percent of validation images that fp16 or int8 must give the same class.")
    ] = 100 * MIN_AGREEMENT,
) -> None:
    """Write the classifier as one file for other runtimes.

    Preprocessing, classes, calibration and votes come with it. The file is written only if it answers as the run does
    on the validation photographs.
    """
    if not 0 <= max_drop <= 100:
        raise ArgumentError(f"--max-drop {max_drop:g} must be 0 to 100 points")
    if not 0 <= min_agreement <= 100:
        raise ArgumentError(f"--min-agreement {min_agreement:g} must be 0 to 100 percent")
    from finevote.export.run import export as write

    done = write(
        run,
        format=format,
        precision=precision,
        opset=opset,
        out=out,
        data=data,
        max_drop=max_drop / 100,
        min_agreement=min_agreement / 100,
    )
    parity = done.parity
    typer.echo(
        f"{done.path}: {done.size_bytes / 1e6:.1f} MB, {done.precision}, {done.seconds:.0f} s\n"
        f"on {parity.num_images:,} validation images {parity.agreement:.2%} get the same class as from the bundle; "
        f"top-1 {parity.top_1_exported:.2%} (bundle {parity.top_1:.2%}); logits differ by up to "
        f"{parity.largest_difference:.1e}"
    )
