"""Tensors out of a weight file, whatever its kind, told by its first bytes; no code in it ever runs."""

import json
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finevote.errors import WeightsError

_WRAPPERS = ("model", "state_dict", "teacher", "model_ema", "module")
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # as bundles, transformers and timm name them
_DESCRIPTION = "bundle.json"
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
# Settings of yacs, which the earlier project saved beside its weights, are read as the plain dict that they are; the
# name stands for `OrderedDict` whatever that file asks of it, and yacs itself is never imported.
_STAND_INS: list[Any] = [(OrderedDict, "yacs.config.CfgNode")]


class WeightFile(NamedTuple):
    """tensors by name; beside: the other values of the file, or of a bundle's description, as plain values."""

    tensors: dict[str, Tensor]
    beside: dict[str, Any]


def read_weight_file(path: Path) -> WeightFile:
    """Read safetensors, torch's own format old and new, or NumPy's `.npz`, whatever the file is called.

    A folder that holds a bundle, or a model as the hub lays it out, is read by its weight file.

    Raises:
        WeightsError: no such file, none of these kinds, cut short, or code inside it.
    """
    path = _file_at(path)
    try:
        kind = _kind_of(path)
        if kind == "safetensors":
            return WeightFile(load_file(path), _read_description(path.with_name(_DESCRIPTION)))
        if kind == "npz":
            return WeightFile(_read_npz(path), {})
        if kind == "torch":
            return _unwrap(_read_torch(path), path)
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} cannot be read as weights, it may be cut short: {first_line(error)}") from None
    raise WeightsError(f"{path} is not a weight file (safetensors, torch's .pth, .pt and .bin, or .npz)")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _file_at(path: Path) -> Path:
    if path.is_dir():
        found = [path / name for name in _IN_FOLDERS if (path / name).is_file()]
        if not found:
            raise WeightsError(f"{path} is a folder without {' or '.join(_IN_FOLDERS)}: give a weight file in it")
        return found[0]
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}: check the path, or use weights=auto or weights=none")
    return path


def _kind_of(path: Path) -> str | None:
    """Return safetensors, npz or torch, by content; None for anything else."""
    with path.open("rb") as file:
        start = file.read(9)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if names and all(name.endswith(".npy") for name in names):
            return "npz"
        return "torch" if any(name.endswith("data.pkl") for name in names) else None
    if start[:4] == b"PK\x03\x04":
        raise ValueError("the end of the archive is missing")
    if start[:1] == pickle.PROTO:
        return "torch"
    header_bytes = int.from_bytes(start[:8], "little")
    return "safetensors" if start[8:] == b"{" and header_bytes <= _MAX_HEADER_BYTES else None


def _read_description(path: Path) -> dict[str, Any]:
    """Return what a bundle says of itself beside its weights; nothing where there is no bundle."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_npz(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _read_torch(path: Path) -> Any:
    try:
        with (
            warnings.catch_warnings(action="ignore"),  # of an old pickle protocol, which the error below tells better
            torch.serialization.safe_globals(_STAND_INS),
            path.open("rb") as file,  # given a path, torch goes by its suffix
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, TypeError, AttributeError, LookupError) as error:
        raise WeightsError(
            f"{path} holds python objects besides tensors and is not opened, since they could run code: "
            "save its state_dict alone, or as .safetensors"
        ) from error


def _unwrap(content: Any, path: Path) -> WeightFile:
    """Return the state_dict in what torch read, however deep it is wrapped, and the plain values around it."""
    beside: dict[str, Any] = {}
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(dict.get(content, wrapper), dict):
            beside |= {key: value for key, value in _plain(content).items() if key != wrapper}
            content = dict.get(content, wrapper)
    tensors = dict(dict.items(content)) if isinstance(content, dict) else {}
    if not (tensors and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in tensors.items())):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state_dict of tensors")
    return WeightFile(tensors, beside)


def _plain(values: dict[Any, Any]) -> dict[str, Any]:
    """Return numbers, texts and lists of them, and mappings of those.

    Read through `dict` itself: an instance from a file may carry attributes named like its methods.
    """
    plain: dict[str, Any] = {}
    for key, value in dict.items(values):
        if isinstance(value, dict):
            plain[str(key)] = _plain(value)
        elif value is None or isinstance(value, (bool, int, float, str)):
            plain[str(key)] = value
        elif isinstance(value, (list, tuple)):
            try:
                plain[str(key)] = json.loads(json.dumps(value))
            except (TypeError, ValueError):
                continue
    return plain
