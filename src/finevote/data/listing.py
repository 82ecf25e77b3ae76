"""The images that paths stand for: files, and whatever is in folders."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from finevote.data.images import IMAGE_SUFFIXES


def list_images(paths: Sequence[Path | str]) -> list[Path]:
    """Return the files as they are and the visible images at any depth of the folders, by name; each path once.

    What is in a hidden folder is hidden too. A folder without images, or that cannot be looked into, is returned
    itself, so that whoever reads the list reports it.
    """
    return list(dict.fromkeys(found for path in map(Path, paths) for found in _images_in(path) or [path]))


def _images_in(path: Path) -> list[Path]:
    """Return the visible images at any depth of a folder, and the folders that cannot be looked into; by name."""
    found: list[Path] = []
    closed: list[OSError] = []
    for folder, subfolders, names in os.walk(path, onerror=closed.append):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files = [Path(folder, name) for name in names if not name.startswith(".")]
        found += [
            file
            for file in files
            if file.suffix.lower() in IMAGE_SUFFIXES and stat.S_IFMT(_mode(file)) in {stat.S_IFREG, 0}
        ]
    return sorted([*found, *(Path(error.filename) for error in closed)])


def _mode(path: Path) -> int:
    """Return what kind of file it is, with its permissions; 0 if it cannot be looked at."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def folder_problem(path: Path) -> str | None:
    """Return why there are no images in a folder; None if it is none."""
    if not stat.S_ISDIR(_mode(path)):
        return None
    try:
        os.scandir(path).close()
    except OSError as error:
        return f"cannot look into this folder: {error.strerror}"
    return "no images in this folder"
