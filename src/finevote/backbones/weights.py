"""Weights into a backbone: recognised by content, resampled once, with nothing missing and nothing left over."""

import logging
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timm.layers import resample_abs_pos_embed
from timm.models import load_state_dict_from_hf
from torch import Tensor

from finevote.backbones.anatomy import dissect
from finevote.backbones.layouts import recognise
from finevote.backbones.weight_files import first_line, read_weight_file
from finevote.errors import WeightsError

_HEAD_PREFIXES = ("head.", "head_dist.", "fc_norm.", "attn_pool.")
_OPTIONAL_BIASES = (".attn.q_bias", ".attn.v_bias")
_TWO_NAMES = ((r"\.ls(\d)\.gamma$", r".gamma_\1"), (r"^fc_norm\.", "norm."), (r"^norm\.", "fc_norm."))
_NUM_NAMED = 8
_logger = logging.getLogger(__name__)


def load_weight_file(vit: Any, path: Path, *, name: str) -> None:
    """Load a weight file, in any layout that `layouts.py` knows, into a timm model without classifier.

    Position embeddings are resampled once, from the file's grid to the model's.

    Args:
        vit: the model.
        path: a file, or a folder that holds a bundle or a model as the hub lays it out.
        name: what the user calls the backbone.

    Raises:
        WeightsError: no such file, not a weight file, code inside it, or weights of another backbone.
    """
    file = read_weight_file(path)
    _load_tensors(vit, file.tensors, origin=str(path), name=name, image_size=_image_size_in(file.beside))


def load_hub_weights(vit: Any, hub_id: str, *, name: str) -> None:
    """Load the weights of a model on the hub, e.g. `timm/vit_base_patch14_dinov2.lvd142m`, from the cache or the net.

    The hub's own client checks what it fetches and keeps it in the cache that timm and transformers share.

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
    _load_tensors(vit, tensors, origin=hub_id, name=name)


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


def _load_tensors(
    vit: Any, tensors: Mapping[str, Tensor], *, origin: str, name: str, image_size: tuple[int, int] | None = None
) -> None:
    """Load tensors in any known layout; `image_size` px is that which they were used with, None for a square."""
    recognised = recognise(tensors)
    if recognised is None:
        raise WeightsError(
            f"{origin} is in no layout that is known, it has {_name_some(tensors)}: "
            "give weights of a vision transformer in one of the layouts that docs/backbones.md lists"
        )
    layout, prefix = recognised
    wanted = vit.state_dict()
    got = layout.to_timm(tensors, prefix=prefix)
    stranger = _compare_anatomies(got, wanted)
    if stranger is None:
        got = _resample(vit, got, origin=origin, image_size=image_size)
    got = _without_unused(_under_names_of(wanted, got), wanted)
    problems = [*filter(None, [stranger]), *_compare_keys(got, wanted)]
    if problems:
        raise WeightsError(
            f"{origin}, in {layout.title}, does not fit the backbone {name}: {'; '.join(problems)}. "
            "Choose the backbone it was made for"
        )
    vit.load_state_dict(got, strict=True)


def _image_size_in(beside: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return rows, columns in px of a bundle's images; None for what is no bundle."""
    preprocessing = beside.get("preprocessing")
    size = preprocessing.get("image_size") if isinstance(preprocessing, dict) else None
    return (int(size[0]), int(size[1])) if isinstance(size, list) and len(size) == 2 else None


def _resample(
    vit: Any, tensors: Mapping[str, Tensor], *, origin: str, image_size: tuple[int, int] | None
) -> dict[str, Tensor]:
    """Bring positions and patches to the model's grid and patch, once, as timm does for weights of its own.

    timm takes positions for those of a square, so the grid of other images is resampled here.
    """
    own = dict(tensors)
    try:
        if image_size is not None and "pos_embed" in own and vit.pos_embed is not None:
            patch = vit.patch_embed.patch_size
            own["pos_embed"] = resample_abs_pos_embed(
                own["pos_embed"],
                new_size=vit.patch_embed.grid_size,
                old_size=(image_size[0] // patch[0], image_size[1] // patch[1]),
                num_prefix_tokens=0 if vit.no_embed_class else vit.num_prefix_tokens,
            )
        return _timm_reading(vit)(own, vit)
    except (RuntimeError, AssertionError) as error:
        raise WeightsError(f"the positions in {origin} cannot be resampled: {first_line(error)}") from None


def _timm_reading(vit: Any) -> Callable[[dict[str, Tensor], Any], dict[str, Tensor]]:
    """Return the function by which timm reads weights of models of this kind."""
    modules = (sys.modules[kind.__module__] for kind in type(vit).__mro__)
    reading: Any = next(module for module in modules if hasattr(module, "checkpoint_filter_fn"))
    return reading.checkpoint_filter_fn  # type: ignore[no-any-return]


def _under_names_of(wanted: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Follow the model where timm has two names for one thing: the branches' scales, and the last norm."""
    named = dict(got)
    for key in got:
        for pattern, other in _TWO_NAMES:
            alias = re.sub(pattern, other, key)
            if key not in wanted and alias in wanted and alias not in named:
                named[alias] = named.pop(key)
                break
    return named


def _without_unused(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out heads that the model has not, and biases it has not that are zero throughout."""
    return {
        key: tensor
        for key, tensor in got.items()
        if key in wanted
        or not (key.startswith(_HEAD_PREFIXES) or (key.endswith(_OPTIONAL_BIASES) and not tensor.any()))
    }


def _compare_anatomies(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    of_file, of_model = (dissect({key: tuple(tensor.shape) for key, tensor in some.items()}) for some in (got, wanted))
    if of_file is None or of_file == of_model:
        return None
    return f"this looks like {of_file}, the backbone is {of_model}"


def _compare_keys(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return what is missing, left over, and of another shape, in timm's names."""
    reshaped = [
        f"{key} is {tuple(got[key].shape)}, not {tuple(wanted[key].shape)}"
        for key in wanted
        if key in got and got[key].shape != wanted[key].shape
    ]
    return [
        f"{len(keys)} {what}: {_name_some(keys)}"
        for what, keys in (
            ("missing keys", set(wanted) - set(got)),
            ("unmatched keys", set(got) - set(wanted)),
            ("keys of another shape", reshaped),
        )
        if keys
    ]


def _name_some(keys: Collection[str]) -> str:
    return f"{', '.join(sorted(keys)[:_NUM_NAMED])}{', ...' if len(keys) > _NUM_NAMED else ''}"


def _first_clause(error: BaseException) -> str:
    return first_line(error).split(". ")[0].removesuffix(".")
