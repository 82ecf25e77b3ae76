"""The calibration of a bundle as arrays, and as a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from finevote.bundle.checks import advice_on
from finevote.bundle.manifest import CALIBRATION_NAME
from finevote.errors import BundleError
from finevote.evaluation.calibrator import Calibration

_SCORES, _UNKNOWN = "scores.", "unknown."  # before the method's name


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the calibration's file into a folder."""
    save_file(as_arrays(calibration), folder / CALIBRATION_NAME)


def as_arrays(calibration: Calibration) -> dict[str, NDArray[Any]]:
    """Return a calibration as plain arrays by name."""
    arrays = {
        "temperature": np.array([calibration.temperature]),
        "keep_rate": np.array([calibration.keep_rate]),
        "labels": calibration.labels.astype(np.int64),
        **{_SCORES + method: np.ascontiguousarray(scores) for method, scores in calibration.scores.items()},
        **{_UNKNOWN + method: np.ascontiguousarray(scores) for method, scores in calibration.unknown.items()},
    }
    optional = {"is_right": calibration.is_right, "class_means": calibration.class_means}
    return arrays | {name: np.ascontiguousarray(found) for name, found in optional.items() if found is not None}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Calibration:
    """Return what `as_arrays` gave; raise KeyError where one of its arrays is missing."""
    return Calibration(
        temperature=float(arrays["temperature"][0]),
        labels=arrays["labels"],
        scores=_named(arrays, _SCORES),
        keep_rate=float(arrays["keep_rate"][0]),
        is_right=arrays.get("is_right"),
        unknown=_named(arrays, _UNKNOWN),
        class_means=arrays.get("class_means"),
    )


def load_calibration(folder: Path) -> Calibration:
    """Read the calibration of a bundle.

    Raises:
        BundleError: it is not one.
    """
    path = folder / CALIBRATION_NAME
    try:
        return from_arrays(load_file(path))
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"cannot read {path} ({error}): {advice_on(folder, {path.name})}") from error


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): found for name, found in arrays.items() if name.startswith(prefix)}
