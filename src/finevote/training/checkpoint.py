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
        RunError: the file is missing, cut short or not ours; says which other checkpoint there is.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"there is no checkpoint {path}{_advise(path)}") from None
    except _NOT_A_CHECKPOINT as error:
        raise RunError(
            f"{path} is cut short or is not a checkpoint of finevote ({_first_line(error)}){_advise(path)}"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"{path} is not a checkpoint of this version of finevote ({FORMAT!r}){_advise(path)}")
    return state


def config_hash(config: Config) -> str:
    """Return the SHA-256 of the resolved settings."""
    return hashlib.sha256(dump_config(config).encode()).hexdigest()


def _advise(path: Path) -> str:
    """Say which of last.pt and best.pt can stand in for the other."""
    other = path.with_name("best.pt" if path.name == "last.pt" else "last.pt")
    if not other.is_file():
        return "; there is no other checkpoint beside it: start the run anew with another --out"
    return f"; {other} is there too: copy it to {path} and --resume goes on from its epoch"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
