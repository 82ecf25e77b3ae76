"""The command `finevote explain`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import KeepRateOption
from finevote.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from finevote.explain.run import Explained


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="A run folder or a bundle folder.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", readable=False, help="Photographs, or folders of them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to; explanations/ in the run unless given.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=10, help="How many classes to name.")] = 5,
    layer: Annotated[
        int | None,
        typer.Option(min=1, help="Whose strongest heads are drawn; the layer with most key tokens unless given."),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Why this class, and, given twice, why not that one; the likeliest and the runner-up unless given.",
        ),
    ] = None,
    no_contrast: Annotated[
        bool, typer.Option("--no-contrast", help="Leave out why not another class, which takes most of the time.")
    ] = False,
    orders: Annotated[
        int | None,
        typer.Option(help="Orders of patches that the contrast is a mean over: an even number; 32 unless given."),
    ] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Of the set of classes; 0.9 where the bundle is calibrated.")
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Share of images of known classes that may be called unknown; 0.05 where it is calibrated."),
    ] = None,
    keep_rate: KeepRateOption = None,
) -> None:
    """Show why photographs are named as they are.

    For each one a figure (where the heads' votes lie, layer by layer, what is answered, and why not the runner-up),
    and the same as JSON. Unreadable ones are reported and skipped.
    """
    if no_contrast and (contrast or orders is not None):
        raise ArgumentError("--no-contrast leaves out what --contrast and --orders ask for: leave out either")
    if orders is not None and (orders < 4 or orders % 2):
        raise ArgumentError(f"--orders {orders} must be an even number from 4: they come in pairs")
    if len(contrast or ()) == 2 and len(set(contrast or ())) == 1:
        raise ArgumentError("--contrast holds two different classes against each other: give one, or two that differ")
    if len(contrast or ()) > 2:
        raise ArgumentError(f"--contrast holds two classes against each other, and {len(contrast or ())} are given")
    from finevote.data.listing import list_images
    from finevote.explain.run import default_out, explain_files
    from finevote.explaining import Asked
    from finevote.predictor import Predictor
    from finevote.progress import Meter

    asked = Asked(
        top=top,
        coverage=coverage,
        false_alarms=false_alarms,
        contrast=None if no_contrast else tuple(contrast or ()),
    )
    if orders is not None:
        asked["num_permutations"] = orders
    paths, unreadable = list_images(inputs), dict[str, str]()
    predictor = Predictor.load(run, device="auto", keep_rate=keep_rate)
    with Meter("explain", total=len(paths)) as meter:
        explained = explain_files(
            predictor,
            paths,
            out=out or default_out(run),
            layer=layer,
            unreadable=unreadable,
            advance=meter.advance,
            **asked,
        )
    _tell(explained, unreadable, has_gallery=predictor.torch.gallery is not None)


def _tell(explained: list[Explained], unreadable: dict[str, str], *, has_gallery: bool) -> None:
    for path, reason in unreadable.items():
        typer.echo(f"skipped {path}: {reason}", err=True)
    if not explained:
        raise DataError("there is no photograph that can be read")
    if not has_gallery:
        typer.echo(
            "note: the bundle remembers no training photographs to show as evidence: `finevote gallery` on the run "
            "adds them",
            err=True,
        )
    for one in explained:
        typer.echo(f"{one.figure}\n    {one.finding}")
