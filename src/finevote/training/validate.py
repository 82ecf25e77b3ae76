"""What the validation split says of a model: how good it is, over all processes, and how far it can be believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from finevote.calibrating import calibrate_model
from finevote.collecting import collect_gallery, metric_of, root_of
from finevote.config import Config
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.metrics import softmax, top_k_accuracy
from finevote.evaluation.predict import predict
from finevote.evaluation.rows import merge
from finevote.training.parts import Parts
from finevote.types import Batch, DataSource, Predictions, Record

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def validate(
    fabric: Fabric, model: nn.Module, loader: Iterable[Batch], *, records: Sequence[Record]
) -> dict[str, float]:
    """Return "val_top1", "val_loss" (mean cross-entropy) and "val_num_images", the same in every process.

    Args:
        fabric: of this process.
        model: on this process's device.
        loader: this process's share of the images.
        records: all of the split.
    """
    whole = gather_predictions(fabric, model, loader, records=records)
    true = softmax(whole.logits)[np.arange(len(whole.labels)), whole.labels]  # (n,)
    return {
        "val_top1": top_k_accuracy(whole.logits, whole.labels, k=1),
        "val_loss": float(-np.log(true.clip(min=np.finfo(np.float64).tiny)).mean()),
        "val_num_images": len(whole.labels),
    }


def calibrate_parts(parts: Parts, source: DataSource, config: Config) -> Calibration | None:
    """Return what validation tells of the evaluated model, in this process alone; None without validation."""
    return calibrate_model(
        parts.evaluated_model,
        source,
        preprocessing=parts.preprocessing,
        batch_size=config.training.batch_size,
        num_workers=config.data.num_workers,
        cache=config.data.cache,
    )


def gallery_of_parts(
    parts: Parts, source: DataSource, config: Config, *, data: str | Path, console: Console
) -> Gallery | None:
    """Return what the evaluated model sees of its training images, in this process alone; None if it is not wanted.

    `data` is the run's data argument.
    """
    if not config.gallery.enabled:
        return None
    return collect_gallery(
        parts.evaluated_model,
        source,
        preprocessing=parts.preprocessing,
        metric=metric_of(config),
        thumbnail_px=config.gallery.thumbnail_px,
        max_images=config.gallery.max_images,
        root=root_of(data),
        batch_size=config.training.batch_size,
        num_workers=config.data.num_workers,
        cache=config.data.cache,
        console=console,
    )


def gather_predictions(
    fabric: Fabric, model: nn.Module, loader: Iterable[Batch], *, records: Sequence[Record]
) -> Predictions:
    """Return labels and logits of the whole split, in the order of the records, in every process."""
    indices: list[int] = []
    predictions = predict(
        model,
        loader,
        records=records,
        device=fabric.device,
        autocast=fabric.autocast(),
        on_output=lambda batch, _: indices.extend(batch.indices.tolist()),
    )
    part = (indices, replace(predictions, final_votes=None, grid=None, embeddings=None))
    if fabric.world_size == 1:
        return merge([part])
    parts: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, part)
    return merge(parts)
