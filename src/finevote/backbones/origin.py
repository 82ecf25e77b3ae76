"""What is known of a backbone by any name, and on what terms its weights come."""

import json
from pathlib import Path
from typing import Any

import timm

from finevote.backbones.catalogue import SHORT_NAMES, create_vit, hub_id_in
from finevote.backbones.official import address_of, is_remote
from finevote.backbones.published import BackboneInfo, WeightsOrigin, obligations_of
from finevote.backbones.timm_vit import TimmVit


def describe_backbone(name: str) -> BackboneInfo:
    """Return what is known of any timm ViT.

    Raises:
        ArgumentError, UnsupportedModelError: as `build_backbone`.
    """
    backbone = TimmVit(create_vit(name, image_size=None, timm_args={}, device="meta"))
    return BackboneInfo(
        name=name,
        timm_name=name,
        family="timm",
        size=name.partition(".")[0],
        num_parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        patch_px=backbone.image_size[0] // backbone.grid[0],
        native_px=backbone.image_size[0],
        licence=_licence_of(name),
        hub_id=_hub_id_of(name),
    )


def weights_origin(name: str, weights: str) -> WeightsOrigin:
    """Return where the weights of a backbone come from and on what terms.

    A file that was brought by hand, or from an address, is taken to be under the licence of the published weights of
    that backbone, unless a bundle beside it says where it came from.

    Args:
        name: of the backbone, as in `build_backbone`.
        weights: likewise.
    """
    timm_name, hub_id = SHORT_NAMES.get(name, name), hub_id_in(weights)
    if weights == "none":
        return WeightsOrigin(timm_name, "random", "", "")
    if hub_id is not None:
        return _origin(timm_name, source=hub_id, licensed_as=hub_id.removeprefix("timm/"))
    if weights == "auto":
        return _origin(timm_name, source=_hub_id_of(timm_name) or timm_name, licensed_as=timm_name)
    if is_remote(weights):
        return _origin(timm_name, source=address_of(weights, timm_name=timm_name), licensed_as=timm_name)
    file = Path(weights).expanduser()
    return _read_bundle_of(file) or _origin(timm_name, source=str(file), licensed_as=timm_name)


def _origin(timm_name: str, *, source: str, licensed_as: str) -> WeightsOrigin:
    licence = _licence_of(licensed_as)
    unknown = f"no licence is known for {source}: ask where it came from before you use it or pass it on"
    return WeightsOrigin(timm_name, source, licence, obligations_of(licence) if licence else unknown)


def _read_bundle_of(file: Path) -> WeightsOrigin | None:
    """Return what a bundle says of the weights that it was made from; None if there is no bundle, or it is silent."""
    manifest = (file if file.is_dir() else file.parent) / "bundle.json"
    try:
        stated = json.loads(manifest.read_text(encoding="utf-8"))["details"]["weights"]
        return WeightsOrigin(**stated)
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _published(timm_name: str) -> Any:
    """Return timm's record of published weights, None where it has none by this name."""
    try:
        return timm.get_pretrained_cfg(timm_name)
    except RuntimeError:  # a model that timm has, with a tag that it has not
        return None


def _licence_of(timm_name: str) -> str:
    return getattr(_published(timm_name), "license", None) or ""


def _hub_id_of(timm_name: str) -> str:
    return getattr(_published(timm_name), "hf_hub_id", None) or ""
