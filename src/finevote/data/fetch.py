"""All files of a published data set, brought into its root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finevote.data.download import RemoteFile

if TYPE_CHECKING:
    from rich.console import Console


def fetch(files: Sequence[RemoteFile], root: Path, *, console: Console | None = None, instructions: str = "") -> Path:
    """Bring what is missing of `files` into `root`, unpack its archives, and return `root`.

    `instructions` is printed to a person who must bring files by hand.
    """
    raise NotImplementedError
