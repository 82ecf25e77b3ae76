"""Deletion and insertion curves of a run's split: of some of its images, kept until the model is another."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from finevote.build import build_eval_loader
from finevote.bundle.manifest import WEIGHTS_NAME
from finevote.errors import ArgumentError, RunError
from finevote.evaluation.curves import num_passes
from finevote.evaluation.faithfulness import (
    NUM_DRAWS,
    NUM_STEPS,
    FaithfulnessCurves,
    follow_orders,
    load_curves,
)
from finevote.evaluation.measurement import Measurement
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.types import DataSource, Predictions, Record

NUM_IMAGES = 200
_BATCH_SIZE = 16
_logger = logging.getLogger(__name__)


def follow_split(
    predictor: Predictor, source: DataSource, split: str, *, num_images: int = NUM_IMAGES
) -> FaithfulnessCurves:
    """Return the curves of up to `num_images` images of a split, drawn evenly over its classes, the same each time.

    Args:
        predictor: of the run's bundle, at the keep rate to measure.
        source: as the split was predicted.
        split: which.
        num_images: how many at most.
    """
    records = draw_evenly(source.splits[split], num_images=num_images)
    model = predictor.model
    num_patches = model.backbone.num_patches
    num_orders = NUM_DRAWS + 1 + (model.budget is not None)
    passes = num_passes(num_orders, num_patches, num_steps=NUM_STEPS)
    loader = build_eval_loader(
        records,
        read=source.read,
        preprocessing=predictor.preprocessing,
        batch_size=_BATCH_SIZE,
        num_workers=predictor.bundle.config.data.num_workers,
    )
    total = len(records) * passes + -(-len(records) // _BATCH_SIZE)
    with Meter("faithfulness", total=total, unit="views") as meter:
        meter.print(f"faithfulness: {len(records):,} of {len(source.splits[split]):,} images, {passes} views of each")
        curves = follow_orders(model, loader, records=records, device=predictor.device, advance=meter.advance)
    sha256 = predictor.bundle.manifest.files[WEIGHTS_NAME].sha256
    return replace(curves, weights_sha256=sha256, keep_rate=model.keep_rate)


def check_number(num_images: int | None) -> None:
    """Raise ArgumentError unless it is None or a number of images whose curves can be made."""
    if num_images is not None and num_images < 1:
        raise ArgumentError(f"the faithfulness of {num_images} images cannot be measured: give 1 or more, or None")


def draw_evenly(records: tuple[Record, ...], *, num_images: int, seed: int = 0) -> tuple[Record, ...]:
    """Return up to so many images in their order: systematically, each class by its share, within it at random."""
    if num_images >= len(records):
        return records
    generator = np.random.default_rng(seed)
    labels = np.array([record.label for record in records])
    in_classes = np.lexsort((generator.random(len(records)), labels))
    places = ((np.arange(num_images) + generator.random()) * len(records) / num_images).astype(np.int64)
    return tuple(records[row] for row in np.sort(in_classes[places]))


def kept_curves(
    path: Path, predictions: Predictions, measurement: Measurement, *, advice: str | None = None
) -> FaithfulnessCurves | None:
    """Return the curves that were measured before, if they are of these weights at this keep rate and these images.

    Args:
        path: where they would be.
        predictions: that they will stand beside.
        measurement: how these came about.
        advice: what ends the error for a file that cannot be read; None to warn and leave it out.

    Raises:
        RunError: the file cannot be read, and there is `advice`.
    """
    if not path.is_file():
        return None
    try:
        curves = load_curves(path) if advice is None else load_curves(path, advice=advice)
    except RunError as error:
        if advice is not None:
            raise
        _logger.warning("left out of the report: %s", error)
        return None
    is_same = (curves.weights_sha256, curves.keep_rate) == (measurement.weights_sha256, measurement.keep_rate)
    return curves if is_same and set(curves.image_ids) <= set(predictions.image_ids) else None
