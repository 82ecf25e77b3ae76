"""Weights from files and the hub: read safely, renamed to timm's keys, nothing missing and nothing left over."""

import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import load_state_dict_from_hf
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from finevote.errors import WeightsError

_CLASSIFIER_PREFIXES = ("head.", "fc_norm.")
_NUM_NAMED = 8
_logger = logging.getLogger(__name__)


def load_weight_file(vit: VisionTransformer, path: Path) -> None:
    """Load a `.pth`, `.pt`, `.bin`, `.safetensors` or Google `.npz` file into a timm ViT without classifier.

    Position embeddings are resampled once, from the file's grid to the model's.

    Raises:
        WeightsError: no such file, not a weight file, code inside it, or keys and shapes that do not match.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder: give a weight file in it")
    if not path.is_file():
        raise WeightsError(f"no weight file at {path}: check the path, or use weights=auto or weights=none")
    if path.suffix == ".npz":
        _load_npz(vit, path)
        return
    _load_tensors(vit, _read_tensors(path), origin=str(path))


def load_hub_weights(vit: VisionTransformer, hub_id: str) -> None:
    """Load the weights of a model on the hub, e.g. `timm/vit_base_patch14_dinov2.lvd142m`, from the cache or the net.

    Raises:
        WeightsError: they cannot be fetched, or do not match.
    """
    _logger.info("fetching the weights %s", hub_id)
    try:
        with _quiet_hub():
            tensors = load_state_dict_from_hf(hub_id, weights_only=True)
    except Exception as error:  # the hub client raises many kinds, all meaning: the weights are not to be had
        raise WeightsError(
            f"the weights {hub_id} could not be fetched ({type(error).__name__}: {_first_clause(error)}): "
            "go online once, give a file by --set model.weights=PATH, or start from random ones by model.weights=none"
        ) from error
    _load_tensors(vit, tensors, origin=hub_id)


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the hub client from logging each of its attempts; how they ended is told by the error."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _load_tensors(vit: VisionTransformer, tensors: dict[str, Tensor], *, origin: str) -> None:
    """Rename, resample and load, with nothing missing and nothing left over but a classifier."""
    renamed = checkpoint_filter_fn(tensors, vit)
    kept = {key: value for key, value in renamed.items() if not key.startswith(_CLASSIFIER_PREFIXES)}
    _check_fit(vit.state_dict(), kept, origin)
    vit.load_state_dict(kept, strict=True)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            tensors: dict[str, Tensor] = load_file(path)
            return tensors
        with warnings.catch_warnings(action="ignore"):  # of an old pickle protocol, which the error below tells better
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not _is_saved_by_python(path):
            raise WeightsError(f"{path} is not a weight file (.pth, .pt, .bin, .safetensors or .npz)") from None
        raise WeightsError(
            f"{path} holds python objects besides tensors and is not opened, since they could run code: "
            "save its state_dict alone, or as .safetensors"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as weights, it may be cut short: {_first_line(error)}") from None
    for wrapper in ("model", "state_dict", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not (isinstance(content, dict) and content and all(isinstance(value, Tensor) for value in content.values())):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not a state_dict of tensors")
    return content


def _is_saved_by_python(path: Path) -> bool:
    """Tell a pickle, or a zip archive with one in it, by its first bytes."""
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO or is_zipfile(path)


def _load_npz(vit: VisionTransformer, path: Path) -> None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys = set(archive.files)
    except (OSError, ValueError, BadZipFile) as error:
        raise WeightsError(f"{path} cannot be read as .npz weights: {_first_line(error)}") from None
    wanted = _npz_keys(len(vit.blocks))
    optional = {key for key in keys if key.startswith(("head/", "pre_logits/"))}
    _report(missing=wanted - keys, unexpected=keys - wanted - optional, reshaped=[], origin=str(path))
    try:
        vit.load_pretrained(str(path))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise WeightsError(f"{path} is of another size than the model: {_first_line(error)}") from None


def _npz_keys(depth: int) -> set[str]:
    block = [f"{norm}/{kind}" for norm in ("LayerNorm_0", "LayerNorm_2") for kind in ("scale", "bias")]
    block += [f"MlpBlock_3/Dense_{i}/{kind}" for i in (0, 1) for kind in ("kernel", "bias")]
    block += [
        f"MultiHeadDotProductAttention_1/{part}/{kind}"
        for part in ("query", "key", "value", "out")
        for kind in ("kernel", "bias")
    ]
    return {
        "cls",
        "embedding/kernel",
        "embedding/bias",
        "Transformer/posembed_input/pos_embedding",
        "Transformer/encoder_norm/scale",
        "Transformer/encoder_norm/bias",
        *(f"Transformer/encoderblock_{i}/{name}" for i in range(depth) for name in block),
    }


def _check_fit(wanted: Mapping[str, Tensor], got: Mapping[str, Any], origin: str) -> None:
    reshaped = [
        f"{key} is {tuple(got[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in got and got[key].shape != wanted[key].shape
    ]
    _report(missing=set(wanted) - set(got), unexpected=set(got) - set(wanted), reshaped=reshaped, origin=origin)


def _report(*, missing: set[str], unexpected: set[str], reshaped: list[str], origin: str) -> None:
    problems = [
        f"{len(keys)} {what}: {', '.join(sorted(keys)[:_NUM_NAMED])}{', ...' if len(keys) > _NUM_NAMED else ''}"
        for what, keys in (
            ("missing keys", missing),
            ("unmatched keys", unexpected),
            ("keys of another shape", set(reshaped)),
        )
        if keys
    ]
    if problems:
        raise WeightsError(
            f"{origin} does not fit the model; {'; '.join(problems)}. Choose the backbone it was made for"
        )


def _first_clause(error: BaseException) -> str:
    return _first_line(error).split(". ")[0].removesuffix(".")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
