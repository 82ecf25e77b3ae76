"""The command `finevote gallery`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal

from finevote.cli_options import DataOption, Run
from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from finevote.measure.gallery import Collected


def gallery(
    run: Run,
    thumbnails: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1024,
            metavar="PX",
            help="Keep small pictures too, of so many pixels on the longer side; 0 for none; the run's setting unless "
            "given. They go wherever the bundle goes.",
        ),
    ] = None,
    max_images: Annotated[
        int | None,
        typer.Option(
            min=1, help="Keep at most so many images, each class an even share; the run's setting unless given."
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the gallery out of the bundle.")] = False,
    data: DataOption = None,
) -> None:
    """Keep training images as evidence.

    Puts what the model sees of its training images into the run's bundle, so that answers can be held against the
    nearest of them, and evaluate can tell how well these are found.
    """
    if remove and not (thumbnails is None and max_images is None and data is None):
        raise ArgumentError("--remove takes the gallery out: leave out --thumbnails, --max-images and --data")
    from finevote.measure import gallery as galleries

    if remove:
        num_bytes = galleries.remove(run)
        typer.echo(f"removed, {decimal(num_bytes)} less in the bundle" if num_bytes else "there was no gallery")
        return
    _tell(galleries.collect(run, data=data, thumbnail_px=thumbnails, max_images=max_images))
    typer.echo(f"next: finevote evaluate {run}")


def _tell(collected: Collected) -> None:
    found, num_bytes, num_thumbnail_bytes = collected
    num_images, width = found.embeddings.shape
    num_classes = len(set(found.labels.tolist()))
    typer.echo(f"{num_images:,} training images of {num_classes:,} classes at keep rate {found.keep_rate:g}")
    embeddings = f"embeddings of {width:,} numbers, {decimal(found.embeddings.nbytes)}"
    typer.echo(f"{decimal(num_bytes)} in the bundle, of it {embeddings}")
    if found.thumbnails:
        thumbnails = f"thumbnails of {found.thumbnail_px} px, {decimal(num_thumbnail_bytes)}"
        typer.echo(f"and {thumbnails}: whoever gets the bundle can see these photographs")
