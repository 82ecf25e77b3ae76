"""Predictions as rows: taken, put together, and which of them belong to one subject. NumPy alone."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.types import Predictions, Record


def merge(parts: Sequence[tuple[Sequence[int], Predictions]]) -> Predictions:
    """Return one table of the rows of several processes, in the order of their indices.

    Raises:
        ArgumentError: an index is missing, comes twice, or does not match its row.
    """
    indices = np.concatenate([np.asarray(numbers, np.int64) for numbers, _ in parts])
    rows = concatenate([predictions for _, predictions in parts])
    order = np.argsort(indices)
    if len(indices) != len(rows.image_ids) or not np.array_equal(indices[order], np.arange(len(indices))):
        raise ArgumentError(
            f"{len(rows.image_ids)} rows have {len(indices)} indices, {len(np.unique(indices))} of them distinct: "
            "each image of the split must come exactly once"
        )
    return take_rows(rows, order)


def take_rows(predictions: Predictions, rows: NDArray[np.int64]) -> Predictions:
    """Return the given rows, in the given order."""
    arrays: dict[str, Any] = {
        name: value[rows] for name, value in vars(predictions).items() if isinstance(value, np.ndarray)
    }
    return replace(predictions, image_ids=tuple(predictions.image_ids[row] for row in rows), **arrays)


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Return the rows of all parts, one after the other; a part without rows adds nothing."""
    filled = [part for part in parts if part.image_ids]
    if not filled:
        return Predictions(image_ids=(), labels=np.zeros(0, np.int64), logits=np.zeros((0, 0), np.float32))
    return replace(
        filled[0],
        image_ids=tuple(image_id for part in filled for image_id in part.image_ids),
        labels=np.concatenate([part.labels for part in filled]),
        logits=np.concatenate([part.logits for part in filled]),
        final_votes=_join([part.final_votes for part in filled]),
        embeddings=_join([part.embeddings for part in filled]),
        groups=_join([part.groups for part in filled]),
        view_logits=_join([part.view_logits for part in filled]),
        most_voted=_join([part.most_voted for part in filled]),
    )


def subject_names(records: Sequence[Record]) -> np.ndarray | None:
    """Return one name for each subject, (n,); an image without a group is a subject by itself. None without groups."""
    if all(record.group is None for record in records):
        return None
    return np.array(
        [f"image {record.image_id}" if record.group is None else f"group {record.group}" for record in records]
    )


def _join(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if present else None
