"""What a bundle remembers of its training images: embeddings to find the nearest ones by, and where these lie."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.metrics import Labels
from finevote.evaluation.nearness import Metric, check_metric

_MOST_OF_HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Gallery:
    """Training images as a model sees them; it is kept in the bundle.

    One row an image: `embeddings` (n, D) in half precision, `labels` (n,) int64, `image_ids` and `paths`. A path is
    relative to `root` where there is one, and None where an image is no file of its own. `thumbnails` are JPEG files of
    at most `thumbnail_px` a side, none where that is 0. Distances are by `metric`, the one that the triplet loss
    shaped. All of it holds at `keep_rate` and for the weights with `weights_sha256`, which is empty until it is saved.

    Raises:
        ArgumentError: the parts do not fit together.
    """

    embeddings: NDArray[np.floating[Any]]
    labels: Labels
    image_ids: tuple[str, ...]
    paths: tuple[str | None, ...]
    root: str | None = None
    keep_rate: float = 1.0
    metric: Metric = "euclidean"
    thumbnails: tuple[bytes, ...] = ()
    thumbnail_px: int = 0
    weights_sha256: str = ""

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if problem := self._find_problem():
            raise ArgumentError(f"a gallery does not fit together: {problem}")

    def _find_problem(self) -> str | None:
        num_images = len(self.image_ids)
        if self.embeddings.ndim != 2 or len(self.embeddings) != num_images or not num_images:
            return f"embeddings {self.embeddings.shape} of {num_images} images, instead of (n, D) of n >= 1"
        if self.labels.shape != (num_images,) or len(self.paths) != num_images:
            return f"labels {self.labels.shape} and {len(self.paths)} paths of {num_images} images"
        if len(self.thumbnails) != (num_images if self.thumbnail_px else 0):
            return f"{len(self.thumbnails)} thumbnails of {self.thumbnail_px} px of {num_images} images"
        if len(set(self.image_ids)) != num_images:
            return "an image comes twice"
        return None if np.isfinite(self.embeddings).all() else "some embeddings are not finite"

    def path(self, row: int) -> Path | None:
        """Return where an image lies, None where it is no file or not there any more."""
        name = self.paths[row]
        if name is None:
            return None
        path = Path(self.root or "", name)
        return path if path.is_file() else None

    def find_rows(self, names: Sequence[str | Path | None]) -> NDArray[np.int64]:
        """Return the row (m,) of each image that is called by its id or by its path, -1 where it is none of them."""
        rows = {image_id: row for row, image_id in enumerate(self.image_ids)}
        at = {os.path.join(self.root or "", path): row for row, path in enumerate(self.paths) if path is not None}  # noqa: PTH118
        found = (-1 if name is None else rows.get(str(name), at.get(_absolute(name), -1)) for name in names)
        return np.fromiter(found, np.int64, count=len(names))


def half_precision(embeddings: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Return embeddings in half precision; in single where one is too large for that."""
    is_small = np.abs(embeddings).max(initial=0.0) <= _MOST_OF_HALF
    return embeddings.astype(np.float16 if is_small else np.float32)


def relative_paths(
    paths: Sequence[Path | None], *, root: Path | None = None
) -> tuple[tuple[str | None, ...], str | None]:
    """Return paths relative to a folder, and the folder: `root` where all lie in it, else the one that all lie in.

    The folder is None, and paths are whole, where there is no such folder.
    """
    whole = [None if path is None else _absolute(path) for path in paths]
    there = [path for path in whole if path is not None]
    folder = _common_folder(there) if root is None else _absolute(root)
    if folder is not None and not all(Path(path).is_relative_to(folder) for path in there):
        folder = _common_folder(there)
    if folder is None or not there:
        return tuple(whole), None
    return tuple(None if path is None else Path(path).relative_to(folder).as_posix() for path in whole), folder


def _absolute(path: str | Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # as it is called, whatever links it is made of


def _common_folder(paths: Sequence[str]) -> str | None:
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    except ValueError:  # none, or on several drives
        return None
