"""One published file, brought whole and verified into a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class RemoteFile:
    """A published file and how to know it.

    Raises:
        ArgumentError: an archive that does not say what it gives.
    """

    name: str  # path below the data set's root
    urls: tuple[str, ...] = ()  # mirrors, tried in turn; none: brought by hand
    num_bytes: int | None = None  # exact, where known
    md5: str | None = None
    sha256: str | None = None
    unpack: bool = False  # an archive whose content belongs beside it
    gives: tuple[str, ...] = ()  # paths below the root that are there once it is unpacked
    unpacked_bytes: int | None = None  # at most, where known

    def __post_init__(self) -> None:
        if self.unpack and not self.gives:
            raise ArgumentError(f"{self.name} is to be unpacked but gives nothing: name the paths it brings")


def download(file: RemoteFile, folder: Path, *, console: Console | None = None) -> Path:
    """Bring `file` into `folder` and return its path; a file that is there is verified and used."""
    raise NotImplementedError
