"""Options that several commands share, as types. Imports nothing heavy, so that help is quick."""

from __future__ import annotations

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
DataOption = Annotated[str | None, typer.Option(help="Where the data set lies now, if it has moved.")]
