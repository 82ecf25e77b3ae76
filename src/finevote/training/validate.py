"""What the validation split says of a model: how good it is, over all processes, and how far it can be believed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from finevote.build import build_eval_loader
from finevote.config import CacheKind, Config
from finevote.evaluation.calibrator import Calibration, calibrate
from finevote.evaluation.metrics import softmax, top_k_accuracy
from finevote.evaluation.predict import merge, predict
from finevote.evaluation.unknown import class_means
from finevote.training.parts import Parts
from finevote.types import Batch, DataSource, Predictions, Record

if TYPE_CHECKING:
    from lightning.fabric import Fabric

IMAGES_FOR_MEAN = 50


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
    """Return what validation tells of the evaluated model, in this process alone; None without validation.

    It is predicted as a bundle predicts: every image here, without autocast. The class means are those of training
    images, which validation images and new ones are equally strange to.
    """
    records = source.splits.get("val")
    if not records:
        return None

    def predict_all(records: Sequence[Record], cache: CacheKind) -> Predictions:
        loader = build_eval_loader(
            records,
            read=source.read,
            preprocessing=parts.preprocessing,
            batch_size=config.training.batch_size,
            num_workers=config.data.num_workers,
            cache=cache,
        )
        return predict(model, loader, records=records, device=next(model.parameters()).device)

    model, cache = parts.evaluated_model, config.data.cache
    trained = predict_all(some_of_each_class(source.splits["train"]), "disk" if cache == "disk" else "none")
    means = None
    if trained.embeddings is not None:
        means = class_means(trained.embeddings, trained.labels, num_classes=len(source.class_names))
    return calibrate(predict_all(records, cache), keep_rate=model.keep_rate, class_means=means)


def some_of_each_class(records: Sequence[Record], *, most: int = IMAGES_FOR_MEAN) -> list[Record]:
    """Return up to `most` images of each class, evenly over those that there are, in their order."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        rows[record.label].append(row)
    chosen = {of_class[len(of_class) * n // most] for of_class in rows.values() for n in range(most)}
    return [records[row] for row in sorted(chosen)]


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
