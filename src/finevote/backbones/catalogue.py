"""Backbones by short name, and the one function that builds any of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from finevote.backbones import compact  # noqa: F401  (registers compact_vit with timm)
from finevote.backbones.timm_vit import TimmVit
from finevote.backbones.weights import load_hub_weights, load_weight_file
from finevote.errors import ArgumentError, UnsupportedModelError, WeightsError, suggest

_DINOV2_SIZES = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}
_HUB_PREFIX = "hf-hub:"
SHORT_NAMES: Mapping[str, str] = {
    **{f"dinov2_{s}": f"vit_{size}_patch14_dinov2.lvd142m" for s, size in _DINOV2_SIZES.items()},
    **{f"dinov2_{s}_reg4": f"vit_{size}_patch14_reg4_dinov2.lvd142m" for s, size in _DINOV2_SIZES.items()},
    "vit_b16_in21k": "vit_base_patch16_224.orig_in21k",
}


def round_image_size(image_size: tuple[int, int], *, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Return the nearest size in px, rows and columns, that whole patches cover; at least one patch."""
    rows, columns = (max(1, round(size / patch)) * patch for size, patch in zip(image_size, patch_size, strict=True))
    return rows, columns


def build_backbone(
    name: str,
    *,
    image_size: tuple[int, int],
    weights: str = "none",
    drop_path: float = 0.0,
    timm_args: Mapping[str, Any] | None = None,
) -> TimmVit:
    """Build a backbone.

    Args:
        name: a short name, or any timm ViT.
        image_size: rows, columns in px, rounded to whole patches.
        weights: "none" for random ones; "auto" for the published ones, from the hub or its cache; a file; or other
            weights of the same model on the hub, such as "hf-hub:timm/vit_base_patch14_dinov2.lvd142m".
        drop_path: rate of the last block, rising linearly from 0 at the first.
        timm_args: more arguments of `timm.create_model`.

    Raises:
        ArgumentError: timm knows no such model, or does not take an argument.
        UnsupportedModelError: the model's CLS attention rows cannot be read.
        WeightsError: the weights cannot be fetched, read or matched.
    """
    timm_name = SHORT_NAMES.get(name, name)
    _check_known(timm_name)
    patch_size = _patch_size(timm_name, timm_args or {})
    settings: dict[str, Any] = {
        **(timm_args or {}),
        "img_size": round_image_size(image_size, patch_size=patch_size),
        "num_classes": 0,
    }
    vit = _create(timm_name, settings)
    if weights == "auto":
        load_hub_weights(vit, _published_hub_id(timm_name), name=name)
    elif weights.startswith(_HUB_PREFIX):
        load_hub_weights(vit, weights.removeprefix(_HUB_PREFIX), name=name)
    elif weights != "none":
        load_weight_file(vit, Path(weights).expanduser(), name=name)
    return TimmVit(vit, drop_path=drop_path)


def _check_known(timm_name: str) -> None:
    if not timm.is_model(timm_name):
        choices = [*SHORT_NAMES, "compact_vit", *timm.list_models("vit_*")]
        raise ArgumentError(f"no backbone is called {timm_name!r}{suggest(timm_name, choices)}")


def _patch_size(timm_name: str, timm_args: Mapping[str, Any]) -> tuple[int, int]:
    """Return the model's patch in px, read off a copy without storage."""
    probe = _create(timm_name, {**timm_args, "num_classes": 0, "device": "meta"})
    rows, columns = probe.patch_embed.patch_size
    return rows, columns


def _create(timm_name: str, settings: Mapping[str, Any]) -> Any:
    try:
        vit = timm.create_model(timm_name, pretrained=False, **settings)
    except (TypeError, AssertionError, ValueError, ArithmeticError, RuntimeError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError(f"timm cannot build {timm_name} with these backbone_args: {reason}") from None
    if not hasattr(vit, "patch_embed") or not hasattr(vit, "blocks"):
        raise UnsupportedModelError(f"{type(vit).__name__} ({timm_name}) is not a vision transformer of timm's kind")
    return vit


def _published_hub_id(timm_name: str) -> str:
    published = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if published is None or not published.hf_hub_id:
        raise WeightsError(f"no weights are published for {timm_name}: use weights=none, or give a file")
    return str(published.hf_hub_id)
