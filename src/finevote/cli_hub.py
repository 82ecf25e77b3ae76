"""The commands `finevote push`, `finevote pull` and `finevote card`. Heavy libraries are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="A run folder or a bundle folder.")]
Repository = Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME of a repository on the Hugging Face hub.")]
GalleryOption = Annotated[
    bool,
    typer.Option("--with-gallery", help="Give the gallery too: names, places and thumbnails of training images."),
]


def push(
    run: Source,
    repository: Repository,
    private: Annotated[bool, typer.Option("--private", help="Make the repository for its owner alone.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    with_gallery: GalleryOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
) -> None:
    """Upload a classifier with its model card.

    The bundle goes as plain files, in one commit. The card states what was measured, and the terms of the weights.
    """
    from finevote.sharing.push import push as send

    done = send(run, repository, private=private, message=message, with_gallery=with_gallery, dry_run=dry_run)
    parcel = done.parcel
    for name in parcel.files:
        typer.echo(f"{name:24} {parcel.num_bytes(name):>14,} bytes")
    for note in parcel.notes:
        typer.echo(f"note: {note}", err=True)
    if done.commit is None:
        typer.echo(f"nothing was sent; the card: finevote card {run}")
        return
    typer.echo(f"{done.address} at {done.commit[:12]}\nnext: finevote pull {repository}")


def pull(
    repository: Repository,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", readable=False, help="Where to; NAME here unless given.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit; the newest unless given.")] = None,
) -> None:
    """Fetch a classifier that was pushed.

    Every file must be the one that its bundle states; nothing else is fetched, and no code is run.
    """
    from finevote.sharing.pull import pull as fetch

    done = fetch(repository, folder, revision=revision)
    total = sum(entry.size_bytes for entry in done.manifest.files.values())
    size = f"{len(done.manifest.class_names):,} classes, {total / 1e6:.1f} MB"
    typer.echo(f"{done.folder}: {size}, every file as stated; commit {done.commit[:12]}")
    if done.left:
        typer.echo(f"note: left on the hub, as no part of the bundle: {', '.join(done.left)}", err=True)
    typer.echo(f"next: finevote predict {done.folder} PHOTOGRAPHS")


def card(run: Source) -> None:
    """Print the model card of a run, as `push` writes it.

    It is Markdown behind YAML, and states only what the bundle and the run say.
    """
    from finevote.sharing.parcel import pack

    typer.echo(pack(run).card, nl=False)
