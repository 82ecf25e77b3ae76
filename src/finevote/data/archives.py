"""Unpacking zip and tar archives: safely, resumably and never half."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to; beyond it, it is refused as a bomb."""

    max_bytes: int = 2**39
    max_members: int = 5_000_000
    max_ratio: float = 100.0  # unpacked bytes to the archive's


def is_archive(path: Path) -> bool:
    """Say by its first bytes, not its name, whether a file is a zip or a (compressed) tar."""
    raise NotImplementedError


def unpack(archive: Path, folder: Path, *, limits: Limits | None = None, console: Console | None = None) -> None:
    """Unpack a zip or tar into `folder`: made whole if it is not there, else merged into it."""
    raise NotImplementedError
