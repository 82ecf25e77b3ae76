"""Predictions as a file: one npz of plain arrays, read without pickle."""

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.errors import RunError
from finevote.files import atomic_write
from finevote.types import Predictions

FORMAT_VERSION = 1
MEASURE_AGAIN = "measure the split again with `finevote evaluate`"
_REQUIRED = {"format_version", "image_ids", "labels", "logits", "class_names"}
_OPTIONAL = {"final_votes", "grid", "most_voted", "embeddings", "groups", "view_names", "view_logits"}
_NOT_AN_NPZ = (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def save_predictions(path: Path, predictions: Predictions, class_names: Sequence[str]) -> None:
    """Write the predictions and class names; the file appears whole or not at all."""
    arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "image_ids": np.array(predictions.image_ids, dtype=np.str_),
        "labels": predictions.labels.astype(np.int64),
        "logits": predictions.logits.astype(np.float32),
        "class_names": np.array(class_names, dtype=np.str_),
    }
    if predictions.final_votes is not None and predictions.grid is not None:
        arrays["final_votes"] = predictions.final_votes.astype(np.float32)
        arrays["grid"] = np.array(predictions.grid, np.int64)
    if predictions.most_voted is not None:
        arrays["most_voted"] = predictions.most_voted.astype(np.int64)
    if predictions.embeddings is not None:
        arrays["embeddings"] = predictions.embeddings.astype(np.float32)
    if predictions.groups is not None:
        arrays["groups"] = np.array(predictions.groups, dtype=np.str_)
    if predictions.view_logits is not None:
        arrays["view_names"] = np.array(predictions.view_names, dtype=np.str_)
        arrays["view_logits"] = predictions.view_logits.astype(np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stubs take the names for other options
    atomic_write(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the plain arrays of a .npz by name; nothing that is pickled is read.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no .npz, cut, or holds anything else.
    """
    content = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(content):  # numpy's own words would advise to unpickle it
        raise ValueError("it is no whole .npz of plain arrays")
    content.seek(0)
    try:
        with np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _NOT_AN_NPZ as error:
        raise ValueError(str(error)) from None


def load_predictions(path: Path, *, advice: str = MEASURE_AGAIN) -> tuple[Predictions, tuple[str, ...]]:
    """Return the predictions and class names of a file that `save_predictions` wrote; `advice` ends an error.

    Raises:
        RunError: the file is missing, cut, of another format, or its arrays do not fit together.
    """
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise RunError(f"there are no predictions at {path}: {advice}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read the predictions {path} ({error}): {advice}") from None
    if problem := _find_problem(arrays):
        raise RunError(f"the predictions {path} are not whole: {problem}; {advice}")
    grid = arrays.get("grid")
    predictions = Predictions(
        image_ids=tuple(arrays["image_ids"].tolist()),
        labels=arrays["labels"],
        logits=arrays["logits"],
        final_votes=arrays.get("final_votes"),
        grid=None if grid is None else (int(grid[0]), int(grid[1])),
        embeddings=arrays.get("embeddings"),
        groups=arrays.get("groups"),
        view_names=tuple(arrays["view_names"].tolist()) if "view_names" in arrays else (),
        view_logits=arrays.get("view_logits"),
        most_voted=arrays.get("most_voted"),
    )
    return predictions, tuple(arrays["class_names"].tolist())


def _find_problem(arrays: dict[str, NDArray[Any]]) -> str | None:
    """Return what does not fit, in words."""
    if arrays.get("format_version") != FORMAT_VERSION:
        return f"format_version is {arrays.get('format_version')}, but this finevote reads {FORMAT_VERSION}"
    if missing := _REQUIRED - set(arrays):
        return f"no {', '.join(sorted(missing))}"
    if unknown := set(arrays) - _REQUIRED - _OPTIONAL:
        return f"unknown {', '.join(sorted(unknown))}"
    for first, second in (("final_votes", "grid"), ("view_logits", "view_names")):
        if (first in arrays) != (second in arrays):
            return f"{first} and {second} come together or not at all"
    wrong = [
        f"{name} is {arrays[name].shape}, not {shape}"
        for name, shape in _expected_shapes(arrays).items()
        if arrays[name].shape != shape
    ]
    return "; ".join(wrong) or None


def _expected_shapes(arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    num_images, num_classes = len(arrays["image_ids"]), len(arrays["class_names"])
    expected: dict[str, tuple[int, ...]] = {
        "image_ids": (num_images,),
        "labels": (num_images,),
        "logits": (num_images, num_classes),
    }
    if "grid" in arrays:
        expected["final_votes"] = (num_images, int(arrays["grid"].prod()))
    if "most_voted" in arrays:
        expected["most_voted"] = (num_images,)
    if "embeddings" in arrays:
        expected["embeddings"] = (num_images, *arrays["embeddings"].shape[1:2])
    if "groups" in arrays:
        expected["groups"] = (num_images,)
    if "view_names" in arrays:
        expected["view_logits"] = (num_images, len(arrays["view_names"]), num_classes)
    return expected
