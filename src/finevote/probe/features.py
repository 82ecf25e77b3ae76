"""What a frozen backbone says of images: the CLS token and the mean patch token, both after the final norm.

These two, by themselves and side by side, are what DINOv2's linear evaluation reads (Oquab et al. 2023, appendix B.3).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finevote.backbones.catalogue import timm_name_of
from finevote.build import build_eval_loader, build_frozen_backbone, build_preprocessing
from finevote.config import Config
from finevote.devices import find_accelerator
from finevote.errors import WeightsError
from finevote.evaluation.predict import evaluation_mode
from finevote.probe.cache import FeatureCache, name_images
from finevote.progress import Meter
from finevote.types import DataSource, Preprocessing, Record

KINDS: Mapping[str, str] = {"cls": "CLS", "cls_patches": "CLS + patches"}
_FORMAT = 1  # raise it when the same backbone would give other features
_BATCH = 32


class Features(NamedTuple):
    """cls (n, D) and patch_mean (n, D), float32; num_cached of the n were there already."""

    cls: NDArray[np.float32]
    patch_mean: NDArray[np.float32]
    num_cached: int = 0

    def parts(self, kind: str) -> list[NDArray[np.float32]]:
        """Return the parts of one of `KINDS`, each (n, D)."""
        return [self.cls] if kind == "cls" else [self.cls, self.patch_mean]

    def joined(self, kind: str) -> NDArray[np.float32]:
        """Return the features of one of `KINDS`, its parts side by side, (n, D) or (n, 2D)."""
        return np.concatenate(self.parts(kind), axis=1)


@dataclass(frozen=True)
class FeatureSpace:
    """All that features depend on besides the image.

    `weights_sha256` is of the tensors in use, so that it tells apart what one name may stand for.
    """

    backbone: str
    backbone_args: Mapping[str, Any]
    weights_sha256: str
    dim: int
    preprocessing: Preprocessing

    @property
    def key(self) -> str:
        """A name that equal spaces share, whatever the backbone is called."""
        architecture, _, _ = timm_name_of(self.backbone).partition(".")  # the tag names weights
        values = {"format": _FORMAT, **asdict(self), "backbone": architecture}
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the space ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` gave, after its way through JSON."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["preprocessing"].items()
        }
        return cls(**{**values, "preprocessing": Preprocessing(**given)})


class FrozenBackbone(nn.Module):
    """A backbone that gives the two tokens; nothing of it is trained."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 2, D), CLS and mean patch token after the final norm, of images (B, 3, rows, columns)."""
        backbone = self.backbone
        tokens = backbone.embed(images)  # (B, N, D)
        for layer in backbone.layers:
            tokens = layer(tokens, num_prefix=backbone.num_prefix, with_rows=False).tokens
        tokens = backbone.norm(tokens)
        return torch.stack([tokens[:, 0], tokens[:, backbone.num_prefix :].mean(1)], dim=1)


class Extractor:
    """Gives the features of images by the frozen backbone of some settings; kept ones are not computed again.

    Args:
        config: names backbone, weights, image size and how images are read.
        space: what the features must be of, where they have been computed before: the backbone is then built only for
            images whose features are not kept. None builds it at once.
        whole_image: squash the whole image to what the backbone sees, without the margin that is cropped off.

    Raises:
        ArgumentError, UnsupportedModelError, WeightsError: as `build_backbone`.
    """

    def __init__(self, config: Config, *, space: FeatureSpace | None = None, whole_image: bool = False) -> None:
        self.config = config
        self.whole_image = whole_image
        self._frozen: FrozenBackbone | None = None
        if space is None:
            backbone = build_frozen_backbone(config)
            space = describe_space(config, backbone, whole_image=whole_image)
            self._frozen = FrozenBackbone(backbone)
        self.space = space
        self.cache = FeatureCache(space.key, dim=space.dim)

    def features(self, source: DataSource, records: Sequence[Record], *, what: str = "images") -> Features:
        """Return the features of images, with progress bars that speak of `what`.

        Raises:
            DataError: an image cannot be read.
            WeightsError: features are missing and the backbone is no longer the one of the space.
        """
        with Meter(f"look up features of {what}", total=len(records)) as meter:
            names = name_images(records, read=source.read, advance=meter.advance)
        kept = self.cache.load_all(names)
        missing = [row for row, found in enumerate(kept) if found is None]
        table = np.zeros((len(records), 2, self.space.dim), np.float32)
        for row, found in enumerate(kept):
            if found is not None:
                table[row] = found
        if missing:
            self._compute(source, records, names, missing, table, what=what)
        return Features(table[:, 0], table[:, 1], len(records) - len(missing))

    def _compute(
        self,
        source: DataSource,
        records: Sequence[Record],
        names: Sequence[str],
        missing: Sequence[int],
        table: NDArray[np.float32],
        *,
        what: str,
    ) -> None:
        """Fill the missing rows of `table` and keep each batch as soon as it is there."""
        loader = build_eval_loader(
            [records[row] for row in missing],
            read=source.read,
            preprocessing=self.space.preprocessing,
            batch_size=_BATCH,
            num_workers=self.config.data.num_workers,
        )
        device = find_accelerator()
        frozen = self._backbone().to(device)
        with (
            Meter(f"{self.space.backbone} sees {what}", total=len(missing)) as meter,
            evaluation_mode(frozen),
            torch.inference_mode(),
        ):
            for batch in loader:
                found = frozen(batch.images.to(device, non_blocking=True)).float().cpu().numpy()  # (B, 2, D)
                for index, features in zip(batch.indices.tolist(), found, strict=True):
                    table[missing[index]] = features
                    self.cache.save(names[missing[index]], features)
                meter.advance(len(found))

    def _backbone(self) -> FrozenBackbone:
        if self._frozen is None:
            backbone = build_frozen_backbone(self.config)
            found = describe_space(self.config, backbone, whole_image=self.whole_image)
            if found.key != self.space.key:
                raise WeightsError(
                    f"the weights that model.weights={self.config.model.weights} gives {self.space.backbone} are not "
                    "those that the probe was fitted with: bring these back"
                )
            self._frozen = FrozenBackbone(backbone)
        return self._frozen


def describe_space(config: Config, backbone: Any, *, whole_image: bool = False) -> FeatureSpace:
    """Return the space of a backbone that was built from settings; `whole_image` as for `Extractor`."""
    data = config.data.model_copy(update={"resize": backbone.image_size}) if whole_image else config.data
    return FeatureSpace(
        backbone=config.model.backbone,
        backbone_args=dict(config.model.backbone_args),
        weights_sha256=hash_tensors(backbone.state_dict()),
        dim=backbone.dim,
        preprocessing=build_preprocessing(data, backbone),
    )


def hash_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors: their names, kinds, shapes and values, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
