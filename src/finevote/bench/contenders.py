"""Who is measured: our classifier, the plain backbone it is compared with, and whoever else is named."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from finevote.backbones.catalogue import build_plain_vit, create_vit, timm_name_of
from finevote.backbones.layer import VitLayer
from finevote.backbones.timm_vit import TimmVit
from finevote.bench.plan import Case
from finevote.build import as_pair, build_loss, build_model
from finevote.config import Config, config_from_values
from finevote.errors import ArgumentError, UnsupportedModelError


class Built(NamedTuple):
    """A model in float32 on the CPU, and how it is trained.

    Attributes:
        objective: the mean loss of its output for labels (B,) int64.
        with_noise: whether it takes a `Noise` behind the images, as the training loop hands it over.
    """

    model: nn.Module
    objective: Callable[[Any, Tensor], Tensor]
    with_noise: bool = False


@dataclass(frozen=True)
class Contender:
    """Somebody to measure: a name, and how to build the model for a case."""

    name: str
    build: Callable[[Case], Built]


def config_of(case: Case) -> Config:
    """Return the settings of our classifier: the defaults, with random weights unless `--set` names others.

    Raises:
        ConfigError: an override is not valid.
    """
    values = {
        "data": {"image_size": case.size},
        "model": {"backbone": case.backbone, "weights": "none", "zero_init_classifier": False},
    }
    return config_from_values(values, source="the benchmark", overrides=case.overrides)


def count_tokens(case: Case) -> int:
    """Return N of the trunk, from the backbone's shapes alone.

    Raises:
        ArgumentError, UnsupportedModelError: as `build_backbone`.
    """
    vit = _outline(case)
    return int(vit.patch_embed.num_patches + vit.num_prefix_tokens + (vit.cls_token is None))


def image_size_of(case: Case) -> tuple[int, int]:
    """Return rows, columns in px of what the models take: the case's size in whole patches; raises likewise."""
    rows, columns = _outline(case).patch_embed.img_size
    return int(rows), int(columns)


def _outline(case: Case) -> Any:
    """Return the backbone as timm has it, with shapes and no numbers."""
    model, size = config_of(case).model, as_pair(case.size)
    return create_vit(timm_name_of(model.backbone), image_size=size, timm_args=model.backbone_args, device="meta")


def _build_ours(case: Case) -> Built:
    config = config_of(case)
    loss = build_loss(config)

    def objective(output: Any, labels: Tensor) -> Tensor:
        mean = loss.combine(loss.classification(output, labels)) / len(labels)
        if loss.triplet_weight == 0:
            return mean
        return mean + loss.triplet_weight * loss.triplet(output.embedding.float(), labels)

    return Built(build_model(config, num_classes=case.num_classes), objective, with_noise=True)


def _build_plain(case: Case) -> Built:
    model = config_of(case).model
    vit = build_plain_vit(
        model.backbone, image_size=as_pair(case.size), num_classes=case.num_classes, timm_args=model.backbone_args
    )
    return Built(vit, lambda logits, labels: F.cross_entropy(logits.float(), labels))


def _build_plain_cls(case: Case) -> Built:
    built = _build_plain(case)
    return built._replace(model=let_cls_alone_leave(built.model))


class ClsOnlyBlock(nn.Module):
    """A backbone's last block that computes CLS alone: the same weights, less what the classifier does not read."""

    def __init__(self, layer: VitLayer, *, num_prefix: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_prefix = num_prefix

    def forward(self, tokens: Tensor, **_: Any) -> Tensor:
        """Return CLS (B, 1, D) of tokens (B, N, D); positions that timm hands over are the layer's own."""
        reading = self.layer.read(tokens, num_prefix=self.num_prefix, with_rows=False, every_query=False)
        return self.layer.write(reading, wanted=tokens.new_zeros(len(tokens), 1).long())


def let_cls_alone_leave(vit: Any) -> nn.Module:
    """Replace the last block of a plain timm model by one that computes CLS alone; logits stay what they were.

    Raises:
        UnsupportedModelError: the model has no CLS token.
    """
    if vit.cls_token is None:
        raise UnsupportedModelError("plain_cls needs a CLS token, but this backbone has none: its patches are averaged")
    backbone = TimmVit(vit)
    vit.blocks[-1] = ClsOnlyBlock(backbone.layers[-1], num_prefix=backbone.num_prefix)  # type: ignore[arg-type]
    return vit  # type: ignore[no-any-return]


OURS = Contender("ours", _build_ours)
PLAIN = Contender("plain", _build_plain)
PLAIN_CLS = Contender("plain_cls", _build_plain_cls)
_OWN = {contender.name: contender for contender in (PLAIN, PLAIN_CLS, OURS)}


def names_of_all(more: Sequence[str]) -> tuple[str, ...]:
    """Return the names that `find_contender` takes: ours and our opponents, and then those of `--contender`."""
    return (*_OWN, *more)


def find_contender(name: str) -> Contender:
    """Return one of our own contenders, or that of MODULE:NAME, looked for in the working directory too.

    Raises:
        ArgumentError: there is no such module or name, or it is no `Contender`.
    """
    if name in _OWN:
        return _OWN[name]
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ArgumentError(f"--contender {name} must look like MODULE:NAME, e.g. benchmarks.naive:NAIVE")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` has it; the command itself does not
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f"--contender {name} cannot be imported: {error}") from None
    if not isinstance(found, Contender):
        raise ArgumentError(f"--contender {name} must be a Contender, but is a {type(found).__name__}")
    return found
