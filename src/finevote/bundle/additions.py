"""Classes added to a bundle: one file for each time, numbered, which can be taken back in turn.

The file comes first and the manifest that lists it after, by one rename; the other way round where it is taken back.
So a process that is killed leaves the bundle as it was or as it is to be, with at most a file that nobody lists.
"""

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as pack

from finevote.bundle.checks import ADDED_NAME, advice_on, describe
from finevote.bundle.manifest import MANIFEST_NAME, Manifest, read_content, sealed
from finevote.errors import ArgumentError, BundleError
from finevote.evaluation.addition import Addition
from finevote.files import atomic_write, exclusive, sync_folder

_FORMAT_VERSION = 1
_ABOUT = "addition"  # the name of the JSON in the file's metadata


def record_addition(folder: Path, addition: Addition) -> str:
    """Add classes to a bundle; return the name of their file. The bundle changes as a whole or not at all.

    Raises:
        BundleError: as `read_manifest`.
        StorageError: the bundle cannot be written.
    """
    with exclusive(folder.parent):
        content = read_content(folder)
        name = f"added-{len(added_files(content['files'])) + 1}.safetensors"
        atomic_write(folder / name, _pack(addition))
        content["files"][name] = describe(folder / name).model_dump()
        atomic_write(folder / MANIFEST_NAME, sealed(content))
    return name


def remove_last_addition(folder: Path) -> str | None:
    """Take the classes back that were added last; return the name of their file, None where none were added.

    The file need not be whole. What is left is, byte for byte, what was there before.

    Raises:
        BundleError: as `read_manifest`.
        StorageError: the bundle cannot be written.
    """
    with exclusive(folder.parent):
        content = read_content(folder)
        names = added_files(content["files"])
        if not names:
            return None
        del content["files"][names[-1]]
        atomic_write(folder / MANIFEST_NAME, sealed(content))
        with contextlib.suppress(OSError):
            (folder / names[-1]).unlink()
            sync_folder(folder)
    return names[-1]


def load_additions(folder: Path, manifest: Manifest) -> tuple[Addition, ...]:
    """Read all classes that were added, in their order.

    Raises:
        BundleError: a file is not one of added classes of this bundle.
    """
    return tuple(_load(folder / name, num_trained=len(manifest.class_names)) for name in added_files(manifest.files))


def load_added_names(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Read the names of all classes that were added, in the order of their logits; Raises as `load_additions`."""
    return tuple(name for addition in load_additions(folder, manifest) for name in addition.class_names)


def added_files(files: Iterable[str]) -> list[str]:
    """Return the names among a bundle's files that hold added classes, in the order in which these were added."""
    return sorted(
        (name for name in files if ADDED_NAME.fullmatch(name)), key=lambda name: int(re.findall(r"\d+", name)[0])
    )


def _pack(addition: Addition) -> bytes:
    arrays = {
        "weights": addition.weights.astype(np.float32),
        "offsets": addition.offsets.astype(np.float64),
        "fit": np.array([addition.slope, addition.bias, addition.keep_rate]),
        "labels": addition.labels.astype(np.int64),
        "embeddings": addition.embeddings.astype(np.float32),
        "logits": addition.logits.astype(np.float32),
        "own_logits": addition.own_logits.astype(np.float64),
    }
    about = {
        "format_version": _FORMAT_VERSION,
        "class_names": addition.class_names,
        "image_ids": addition.image_ids,
        "paths": addition.paths,
        "details": dict(addition.details),
    }
    whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    return bytes(pack(whole, metadata={_ABOUT: json.dumps(about)}))


def _load(path: Path, *, num_trained: int) -> Addition:
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        return _checked(about, arrays, num_trained=num_trained)
    except (SafetensorError, ArgumentError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(f"cannot read {path} ({error}): {advice_on(path.parent, {path.name})}") from error


def _checked(about: dict[str, Any], arrays: dict[str, Any], *, num_trained: int) -> Addition:
    """Return what a file holds; any error of a part that is missing or of another kind is left to the caller."""
    if (found := about["format_version"]) != _FORMAT_VERSION:
        raise ArgumentError(f"format_version is {found}, but this finevote reads {_FORMAT_VERSION}")
    slope, bias, keep_rate = arrays.pop("fit").tolist()
    names: dict[str, Any] = {name: tuple(about[name]) for name in ("class_names", "image_ids", "paths")}
    addition = Addition(**names, **arrays, slope=slope, bias=bias, keep_rate=keep_rate, details=about["details"])
    if addition.num_trained != num_trained:
        raise ArgumentError(f"it was added to {addition.num_trained} classes, and the bundle has {num_trained}")
    return addition
