"""The commands `finevote evaluate` and `finevote figure`. Heavy libraries are imported inside them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import DataOption, KeepRateOption, Run, Split, SplitOption, ViewsOption
from finevote.cli_output import print_rich
from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from pathlib import Path

    from finevote.evaluation.report import Report


def evaluate(
    run: Run,
    split: SplitOption = Split.VAL,
    data: DataOption = None,
    keep_rate: KeepRateOption = None,
    views: ViewsOption = None,
    saved: Annotated[
        bool, typer.Option("--saved", help="Compute the figures anew from saved predictions; no image is opened.")
    ] = False,
    faithfulness: Annotated[
        bool,
        typer.Option(
            "--faithfulness",
            help="Take patches away and bring them in, in the order of the votes, and see what the model still says; "
            "some 150 views of each image.",
        ),
    ] = False,
    faithfulness_images: Annotated[
        int | None, typer.Option(min=1, help="Of how many images, drawn evenly, with --faithfulness; 200 unless given.")
    ] = None,
    with_added: Annotated[
        bool, typer.Option("--with-added", help="Measure with the classes of add-class instead: what changes by them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a run on a split.

    Accuracies with 95% intervals, over all images and per class, and which classes are mistaken for which. What views
    gain stands in rows of their own, beside the plain view.
    """
    if saved and data is not None:
        raise ArgumentError("--saved opens no image: leave out --data, or --saved to measure the images there")
    if saved and faithfulness:
        raise ArgumentError("--saved runs no model: leave out --faithfulness; what was measured before stays")
    if faithfulness_images is not None and not faithfulness:
        raise ArgumentError("--faithfulness-images is of use with --faithfulness only: add that")
    if with_added:
        if saved or faithfulness or views is not None or keep_rate is not None:
            raise ArgumentError(
                "--with-added measures the plain view at the bundle's keep rate: give --split and --data"
            )
        _measure_with_added(run, split=split, data=data, as_json=as_json)
        return
    from finevote.measure.evaluate import evaluate as measure
    from finevote.measure.faithfulness import NUM_IMAGES

    def show(report: Report) -> None:
        if as_json:
            typer.echo(json.dumps(report.to_dict(), indent=2))
        else:
            print_rich(report.table())

    kind = "plain" if views is None else views.value
    num_followed = (faithfulness_images or NUM_IMAGES) if faithfulness else None
    measure(
        run,
        split=split.value,
        data=data,
        keep_rate=keep_rate,
        views=kind,
        saved=saved,
        faithfulness=num_followed,
        on_report=show,
    )


def _measure_with_added(run: Path, *, split: Split, data: str | None, as_json: bool) -> None:
    from finevote.added import measure_extended

    figures = measure_extended(run, split=split.value, data=data)
    if as_json:
        typer.echo(json.dumps(figures.to_dict(), indent=2, ensure_ascii=False))
        return
    print_rich(figures.table())
    for note in figures.notes():
        typer.echo(f"\n{note}")


def figure(run: Run, split: SplitOption = Split.VAL, data: DataOption = None) -> None:
    """Draw example predictions.

    Right and wrong ones are told apart by their borders.
    """
    from finevote.measure.examples import draw_examples

    typer.echo(draw_examples(run, split=split.value, data=data))
