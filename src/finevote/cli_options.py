"""Options that several commands share, as types. Imports nothing heavy, so that help is quick."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Split(StrEnum):
    """The splits that a classifier can be measured on."""

    VAL = "val"
    TEST = "test"


class Views(StrEnum):
    """What can be averaged beside the plain view of an image."""

    FLIP = "flip"
    FIVE_CROP = "five-crop"
    TEN_CROP = "ten-crop"


# Paths are declared `readable=False` so that typer does not judge them: the commands have better messages.
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", readable=False, file_okay=False, help="A run folder, as `finevote fit` makes it."),
]
SplitOption = Annotated[Split, typer.Option(help="Each look at the test split is entered in the run's ledger.")]
KeepRateOption = Annotated[
    float | None,
    typer.Option(help="Share of patches that each reducing layer keeps: less is faster; the bundle's unless given."),
]
ViewsOption = Annotated[
    Views | None,
    typer.Option(
        help="Average views of each image: itself and its mirror image, centre and corners, or both. The "
        "calibration stays that of the plain view."
    ),
]
SkipBadOption = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out instead of stopping.")]
HoldOutOption = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|NAMES",
        help="Do not train on so many classes, or on these, with commas; their images show how well the unknown is "
        "told (data.hold_out_classes).",
    ),
]
DataOption = Annotated[str | None, typer.Option(help="Where the data set lies now, if it has moved.")]


def hold_out_setting(classes: str | None) -> list[str]:
    """Return the setting that holds out so many classes, or these, as `--set` takes it; none if it is not wanted."""
    if classes is None:
        return []
    names = [name.strip() for name in classes.split(",") if name.strip()]
    value = classes if classes.strip().isdecimal() else json.dumps(names, ensure_ascii=False)
    return [f"data.hold_out_classes={value}"]
