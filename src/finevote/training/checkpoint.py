"""The state of a training on disk, so that it can go on after any stop."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from finevote.config import Config, dump_config
from finevote.errors import RunError
from finevote.files import atomic_file

FORMAT = "finevote checkpoint 1"
_START_ANEW = "start the run anew with another --out"
_NOT_A_CHECKPOINT = (
    RuntimeError,
    ValueError,
    KeyError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values; the file appears whole or the old one stays.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    with atomic_file(path) as file:
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, on the CPU. Nothing in the file can run code.

    Raises:
        RunError: the file is missing, cut short or not ours, with what can be done; or it cannot be read.
    """
    try:
        return _read(path)
    except PermissionError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    except RunError as error:
        raise RunError(f"{error}; {_advise(path)}") from None


def load_best(path: Path) -> dict[str, Any]:
    """Return the checkpoint of the best epoch.

    Raises:
        RunError: as `load_checkpoint`; or the weights are of another epoch than the figures.
    """
    state = load_checkpoint(path)
    position = state["position"]
    if position["step"] or not position["best"] or position["epoch"] != position["best"]["epoch"]:
        best = position["best"]["epoch"] if position["best"] else "none"
        raise RunError(
            f"{path} holds the weights after {position['epoch']} epochs, but the best epoch is {best}: it is a copy of "
            f"another checkpoint; put the right file back, or {_START_ANEW}"
        )
    return state


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the resolved settings that the training depends on."""
    return hashlib.sha256(dump_config(config, without=("gallery",)).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """Return the state in a file, or raise PermissionError or a RunError without advice."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}") from None
    except _NOT_A_CHECKPOINT as error:
        raise RunError(f"{path} is cut short or is not a checkpoint of finevote ({_first_line(error)})") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"{path} is not a checkpoint of this version of finevote ({FORMAT!r})")
    return state


def _advise(path: Path) -> str:
    """Say what can be done: best.pt can stand in for last.pt, but never the other way round."""
    if path.name != "last.pt":
        return f"no other file holds the weights of the best epoch: {_START_ANEW}"
    best = path.with_name("best.pt")
    try:
        _read(best)
    except (OSError, RunError):
        return f"there is no other checkpoint beside it that can be read: {_START_ANEW}"
    return f"{best} is whole: copy it to {path} and --resume goes on from its epoch"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
