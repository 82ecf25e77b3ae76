"""Backbones by short name, and the one function that builds any of them."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from finevote.backbones import compact  # noqa: F401  (registers compact_vit with timm)
from finevote.backbones.official import fetch_weights, is_remote
from finevote.backbones.published import PUBLISHED
from finevote.backbones.timm_vit import TimmVit, check_vit
from finevote.backbones.weights import load_hub_weights, load_weight_file
from finevote.errors import ArgumentError, UnsupportedModelError, WeightsError

_HUB_PREFIX = "hf-hub:"
SHORT_NAMES: Mapping[str, str] = {name: info.timm_name for name, info in PUBLISHED.items()}

# What `backbone_args` cannot say, because a setting of its own says it or because the method does.
_NOT_ARGUMENTS: Mapping[str, str] = {
    "img_size": "the image size is data.image_size",
    "dynamic_img_size": "the image size is data.image_size",
    "num_classes": "the classifier is the head's own",
    "global_pool": "the class is read from the CLS token",
    "drop_rate": "use model.dropout",
    "drop_path_rate": "use model.drop_path",
    **{
        f"rope_{change}_coords": "positions are the same in training and in use"
        for change in ("shift", "jitter", "rescale")
    },
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
    load_weights: bool = True,
    drop_path: float = 0.0,
    timm_args: Mapping[str, Any] | None = None,
) -> TimmVit:
    """Build a backbone.

    Its pixel statistics are those of the weights that are named: by `weights`, where that is one of timm's on the hub,
    else by `name`.

    Args:
        name: a short name, or any timm ViT.
        image_size: rows, columns in px, rounded to whole patches.
        weights: "none" for random ones; "auto" for the published ones, from the hub or its cache; "official" for the
            file that was published first; a file, a bundle, or an address; or other weights of the same model on the
            hub, such as "hf-hub:timm/vit_base_patch14_dinov2.lvd142m".
        load_weights: False leaves the backbone random, for weights that come from a checkpoint or a bundle.
        drop_path: rate of the last block, rising linearly from 0 at the first.
        timm_args: more arguments of `timm.create_model`.

    Raises:
        ArgumentError: timm knows no such model, or does not take an argument.
        UnsupportedModelError: the model's CLS attention rows cannot be read.
        WeightsError: the weights cannot be fetched, read or matched.
    """
    timm_name = _with_tag_of(weights, timm_name_of(name))
    vit = create_vit(timm_name, image_size=image_size, timm_args=timm_args or {})
    if load_weights and weights != "none":
        _load(vit, weights, name=name, timm_name=timm_name)
    return TimmVit(vit, drop_path=drop_path)


def build_plain_vit(
    name: str, *, image_size: tuple[int, int], num_classes: int, timm_args: Mapping[str, Any] | None = None
) -> Any:
    """Return timm's own model with random weights and a linear classifier on CLS, or on the patches' mean without one.

    Args:
        name: a short name, or any timm ViT.
        image_size: rows, columns in px, rounded to whole patches.
        num_classes: C.
        timm_args: more arguments of `timm.create_model`.

    Raises:
        ArgumentError, UnsupportedModelError: as `build_backbone`.
    """
    vit = create_vit(timm_name_of(name), image_size=image_size, timm_args=timm_args or {})
    vit.reset_classifier(num_classes, "avg" if vit.cls_token is None else "token")
    return vit


def timm_name_of(name: str) -> str:
    """Return timm's name of a backbone that may be called by its short one."""
    return SHORT_NAMES.get(name, name)


def create_vit(
    timm_name: str, *, image_size: tuple[int, int] | None, timm_args: Mapping[str, Any], device: str = "cpu"
) -> Any:
    """Return the timm model with random weights, without pooling head and classifier, for images of one size.

    Args:
        timm_name: any timm ViT.
        image_size: rows, columns in px, rounded to whole patches; None for the model's native size.
        timm_args: more arguments of `timm.create_model`.
        device: "meta" makes tensors without storage, to look at.

    Raises:
        ArgumentError, UnsupportedModelError: as `build_backbone`.
    """
    _check_known(timm_name)
    for argument in timm_args:
        if argument in _NOT_ARGUMENTS:
            raise UnsupportedModelError(
                f"{argument} in model.backbone_args is not supported: {_NOT_ARGUMENTS[argument]}"
            )
    probe = _create(timm_name, {**timm_args, "device": "meta"})
    check_vit(probe)
    size = probe.patch_embed.img_size if image_size is None else image_size
    pool = "" if probe.cls_token is None else "token"
    settings = {
        "img_size": round_image_size(size, patch_size=probe.patch_embed.patch_size),
        "dynamic_img_size": False,
        **({} if probe.global_pool == pool else {"global_pool": pool}),
    }
    return _create(timm_name, {**timm_args, **settings, "device": device})


def hub_id_in(weights: str) -> str | None:
    """Return the name on the hub in a setting such as "hf-hub:timm/...", None in another setting."""
    return weights.removeprefix(_HUB_PREFIX) if weights.startswith(_HUB_PREFIX) else None


def published_hub_id(timm_name: str) -> str:
    """Return where on the hub the published weights of a timm model are.

    Raises:
        WeightsError: none are published.
    """
    published = timm.get_pretrained_cfg(timm_name, allow_unregistered=True)
    if published is None or not published.hf_hub_id:
        raise WeightsError(f"no weights are published for {timm_name}: use weights=none, or give a file")
    return str(published.hf_hub_id)


def _load(vit: Any, weights: str, *, name: str, timm_name: str) -> None:
    hub_id = published_hub_id(timm_name) if weights == "auto" else hub_id_in(weights)
    if hub_id is not None:
        load_hub_weights(vit, hub_id, name=name)
    elif is_remote(weights):
        load_weight_file(vit, fetch_weights(weights, timm_name=timm_name), name=name)
    else:
        load_weight_file(vit, Path(weights).expanduser(), name=name)


def _with_tag_of(weights: str, timm_name: str) -> str:
    """Return timm's name of these weights where they are timm's own and of this architecture, else `timm_name`."""
    named = (hub_id_in(weights) or "").removeprefix("timm/")
    architecture = timm_name.partition(".")[0]
    return named if named in timm.list_pretrained(f"{architecture}.*") else timm_name


def _check_known(timm_name: str) -> None:
    if not timm.is_model(timm_name):
        own = [*SHORT_NAMES, "compact_vit"]
        near = difflib.get_close_matches(timm_name, [*own, *timm.list_models(["vit_*", "deit*", "eva*"])], n=1)
        told = f"; did you mean {near[0]!r}?" if near else f"; allowed: {', '.join(own)}, or the name of a ViT of timm"
        raise ArgumentError(f"no backbone is called {timm_name!r}{told}")


def _create(timm_name: str, settings: Mapping[str, Any]) -> Any:
    try:
        return timm.create_model(timm_name, pretrained=False, num_classes=0, **settings)
    except (TypeError, AssertionError, ValueError, ArithmeticError, RuntimeError, LookupError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ArgumentError(f"timm cannot build {timm_name} with these backbone_args: {reason}") from None
