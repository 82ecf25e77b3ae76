"""The training photographs that an answer can be held against: the nearest, and those of the two likeliest classes."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.images import read_image
from finevote.errors import ArgumentError, DataError
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.metrics import Logits, rank_classes
from finevote.evaluation.search import Rows, Vectors, nearest


@dataclass(frozen=True)
class Neighbour:
    """A training photograph near an image.

    `path` is None where it is no file or not there any more, `thumbnail` (a JPEG) where the gallery has none.
    """

    class_name: str
    distance: float
    image_id: str
    path: Path | None = None
    thumbnail: bytes | None = None

    def picture(self) -> Image.Image | None:
        """Return it as RGB: the file where it can be read, else the thumbnail; None without either."""
        if self.path is not None:
            try:
                return read_image(self.path)
            except DataError:
                pass  # it was changed since: the thumbnail still tells
        return None if self.thumbnail is None else Image.open(io.BytesIO(self.thumbnail)).convert("RGB")


@dataclass(frozen=True)
class Evidence:
    """The training photographs nearest to one image, nearest first; distances are by `metric`.

    `nearest` are of any class, `of_predicted` and `of_runner_up` of the likeliest class and of the next one. A class of
    which the gallery has no image has none here.
    """

    metric: str
    predicted: str
    runner_up: str
    nearest: tuple[Neighbour, ...]
    of_predicted: tuple[Neighbour, ...]
    of_runner_up: tuple[Neighbour, ...]


def find_evidence(
    gallery: Gallery,
    logits: Logits,
    embeddings: Vectors,
    *,
    class_names: Sequence[str],
    num_each: int = 3,
    names: Sequence[str | Path | None] | None = None,
) -> list[Evidence]:
    """Return the evidence for each image, from what the model of the gallery says of it at the gallery's keep rate.

    Args:
        gallery: of the model.
        logits: (m, C).
        embeddings: (m, D).
        class_names: (C,) in the order of the logits.
        num_each: photographs of each kind, at most.
        names: (m,) the path or id of each image: one that is in the gallery is not evidence for itself.

    Raises:
        ArgumentError: the parts do not fit together, or `num_each` is below 1.
    """
    if logits.shape != (len(embeddings), len(class_names)) or len(class_names) < 2:
        raise ArgumentError(
            f"got logits {logits.shape} of {len(embeddings)} images and {len(class_names)} classes: "
            "give (m, C) of m images and C >= 2 classes"
        )
    itself = gallery.find_rows([None] * len(logits) if names is None else names)
    of_any = nearest(gallery.embeddings, embeddings, k=num_each, metric=gallery.metric, excluded=itself[:, None])
    found = []
    for image, (predicted, runner_up, *_) in enumerate(rank_classes(logits)):
        both = [
            _nearest_of_class(gallery, embeddings[image], label=label, itself=itself[image], k=num_each)
            for label in (predicted, runner_up)
        ]
        near = [
            _describe(gallery, rows, distances, class_names)
            for rows, distances in ((of_any.rows[image], of_any.distances[image]), *both)
        ]
        found.append(Evidence(gallery.metric, class_names[predicted], class_names[runner_up], *near))
    return found


def _nearest_of_class(
    gallery: Gallery, embedding: Vectors, *, label: int, itself: int, k: int
) -> tuple[Rows, NDArray[np.float64]]:
    """Return the rows of the nearest images of a class, and their distances."""
    rows = np.flatnonzero(gallery.labels == label)
    rows = rows[rows != itself]
    if not len(rows):
        return rows, np.zeros(0)
    (places,), (distances,) = nearest(gallery.embeddings[rows], embedding[None], k=k, metric=gallery.metric)
    return rows[places], distances


def _describe(
    gallery: Gallery, rows: Rows, distances: NDArray[np.float64], class_names: Sequence[str]
) -> tuple[Neighbour, ...]:
    return tuple(
        Neighbour(
            class_name=class_names[gallery.labels[row]],
            distance=float(distance),
            image_id=gallery.image_ids[row],
            path=gallery.path(row),
            thumbnail=(gallery.thumbnails[row] or None) if gallery.thumbnails else None,
        )
        for row, distance in zip(rows.tolist(), distances, strict=True)
        if row >= 0
    )
