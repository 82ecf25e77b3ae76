"""Photographs for the page: what the model saw of each, its final votes as discs, and small JPEGs within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from finevote.data.images import enough_pixels
from finevote.errors import DataError
from finevote.evaluation.metrics import Rates
from finevote.explanation.explained import Contrast
from finevote.measure.examples import crop_to_view
from finevote.report.blocks import RIGHT, WRONG, Disc, Photo
from finevote.report.text import share
from finevote.types import DataSource, Predictions, Preprocessing, Record

_KEPT_PX = 320  # of the longer side, in memory
_LARGEST_DISC = 0.42  # of a patch's shorter side
_LEAST_SHOWN = 0.02  # of the largest contribution
_PLACES = (("upper left", "top", "upper right"), ("left", "middle", "right"), ("lower left", "bottom", "lower right"))


@dataclass(frozen=True, eq=False)
class Training:
    """A training photograph, whole, how far from a mistake it lies, and the model's final votes, if it has any."""

    image: Image.Image
    class_name: str
    distance: float
    votes: NDArray[np.floating[Any]] | None = None


@dataclass
class Shelf:
    """The photographs of a split, read when they are asked for; those that cannot be read are counted."""

    source: DataSource
    records: Mapping[str, Record]
    view: Preprocessing
    num_lost: int = 0

    def read(self, image_id: str) -> Image.Image | None:
        """Return what the model saw of a photograph, small, in its own proportions; None if it cannot be read."""
        record = self.records.get(image_id)
        if record is None:
            self.num_lost += 1
            return None
        try:
            with enough_pixels((2 * _KEPT_PX, 2 * _KEPT_PX)):
                image = self.source.read(record)
        except DataError:
            self.num_lost += 1
            return None
        return small(crop_to_view(image, self.view))


def small(image: Image.Image, side_px: int = _KEPT_PX) -> Image.Image:
    """Return a copy whose longer side has at most `side_px`."""
    copy = image.convert("RGB")
    copy.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return copy


def photograph(
    row: int,
    *,
    predictions: Predictions,
    probabilities: Rates,
    class_names: Sequence[str],
    shelf: Shelf,
    is_of_pair: bool = False,
) -> Photo | None:
    """Return the image of a row with what is said of it and its votes; None if it cannot be read.

    Args:
        row: of the predictions.
        predictions: of the split.
        probabilities: (n, C), as they are told to people.
        class_names: in the order of the logits.
        shelf: where the photographs are.
        is_of_pair: it is called by its true class and has no list of classes, as befits one of two that are compared.
    """
    image = shelf.read(predictions.image_ids[row])
    if image is None:
        return None
    label, said = int(predictions.labels[row]), int(probabilities[row].argmax())
    true_name, said_name, sure = class_names[label], class_names[said], share(probabilities[row, said])
    spoken = f"named right, {sure}" if label == said else f"taken for {said_name}, {sure}"
    votes = votes_of(predictions, row)
    likeliest = np.argsort(-probabilities[row], kind="stable")[: 0 if is_of_pair else 3]
    wrong = [] if label == said else [f"is {true_name}"]
    return Photo(
        image,
        alt=f"{true_name}, {spoken}{describe_votes(votes)}",
        title=true_name if is_of_pair else said_name,
        verdict=RIGHT if label == said else WRONG,
        lines=[spoken] if is_of_pair else wrong,
        chances=[(class_names[other], float(probabilities[row, other])) for other in likeliest],
        discs=discs_of(votes, image.size),
    )


def votes_of(predictions: Predictions, row: int) -> NDArray[np.floating[Any]] | None:
    """Return an image's final votes (rows, columns); None where there are none."""
    if predictions.final_votes is None or predictions.grid is None:
        return None
    return np.asarray(predictions.final_votes[row].reshape(predictions.grid))


def discs_of(votes: NDArray[np.floating[Any]] | None, size: tuple[int, int]) -> list[Disc]:
    """Return a disc on each patch with votes (rows, columns), its area in proportion to them, in pixels of `size`."""
    if votes is None or votes.max(initial=0) <= 0:
        return []
    width, height = size[0] / votes.shape[1], size[1] / votes.shape[0]
    largest = min(width, height) * _LARGEST_DISC
    return [
        Disc(
            round(float(column + 0.5) * width, 1),
            round(float(row + 0.5) * height, 1),
            round(largest * float(np.sqrt(votes[row, column] / votes.max())), 1),
        )
        for row, column in zip(*np.nonzero(votes > 0), strict=True)
    ]


def contrast_photo(contrast: Contrast, image: Image.Image) -> Photo:
    """Return a grey photograph with what each patch adds to one class, and to the other, as discs of two colours."""
    values = contrast.contributions
    one, other = contrast.class_a, contrast.class_b
    width, height = image.width / values.shape[1], image.height / values.shape[0]
    largest, highest = min(width, height) * _LARGEST_DISC, max(float(np.abs(values).max()), 1e-12)
    discs = [
        Disc(
            round(float(column + 0.5) * width, 1),
            round(float(row + 0.5) * height, 1),
            round(largest * float(np.sqrt(abs(values[row, column]) / highest)), 1),
            "for" if values[row, column] > 0 else "against",
        )
        for row, column in zip(*np.nonzero(np.abs(values) > _LEAST_SHOWN * highest), strict=True)
    ]
    added = float(values.sum())
    told = (
        f"Logits differ by {contrast.difference:+.2f}: {contrast.difference_without:+.2f} without any voted patch, "
        f"{added:+.2f} by the patches"
    )
    return Photo(
        ImageOps.grayscale(image).convert("RGB"),
        alt=f"Patches that speak for {one} and for {other}: {told}",
        title=f"Why {one}, not {other}?",
        lines=[f"Blue speaks for {one}, orange for {other}.", f"{told}."],
        discs=discs,
    )


def training_photo(some: Training, view: Preprocessing) -> Photo:
    """Return what the model sees of a training photograph that a mistake looks like, with its votes."""
    image = small(crop_to_view(some.image, view))
    return Photo(
        image,
        alt=f"Training photograph of {some.class_name}, at distance {some.distance:.2f}{describe_votes(some.votes)}",
        title=some.class_name,
        lines=[f"training photograph, distance {some.distance:.2f}"],
        discs=discs_of(some.votes, image.size),
    )


def describe_votes(votes: NDArray[np.floating[Any]] | None) -> str:
    """Return in words where most of the votes (rows, columns) are, "" without any."""
    if votes is None or votes.sum() <= 0:
        return ""
    rows, columns = votes.shape
    thirds = np.zeros((3, 3))
    places = np.arange(rows)[:, None] * 3 // rows, np.arange(columns)[None, :] * 3 // columns
    np.add.at(thirds, tuple(np.broadcast_arrays(*places)), votes)
    row, column = np.unravel_index(int(thirds.argmax()), (3, 3))
    return f"; most votes at the {_PLACES[row][column]}"


def data_uri(image: Image.Image, *, side_px: int, quality: int) -> str:
    """Return a JPEG of at most `side_px` as a data URI."""
    buffer = io.BytesIO()
    small(image, side_px).save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
