"""A model over its training images: the gallery that its bundle remembers."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from finevote.build import build_eval_loader
from finevote.config import CacheKind, Config
from finevote.data.subset import even_share
from finevote.data.thumbnails import make_thumbnails
from finevote.evaluation.gallery import Gallery, half_precision, relative_paths
from finevote.evaluation.nearness import Metric
from finevote.evaluation.predict import evaluation_mode
from finevote.model import FineGrainedClassifier
from finevote.progress import Meter
from finevote.types import Batch, DataSource, ModelOutput, Preprocessing


def collect_gallery(
    model: FineGrainedClassifier,
    source: DataSource,
    *,
    preprocessing: Preprocessing,
    metric: Metric = "euclidean",
    thumbnail_px: int = 0,
    max_images: int | None = None,
    root: Path | None = None,
    batch_size: int = 32,
    num_workers: int = 0,
    cache: CacheKind = "none",
    console: Console | None = None,
) -> Gallery:
    """Return the gallery of a model at the keep rate that it has, of its training images, with a progress bar.

    Every image is seen in this process, as in evaluation, without autocast.

    Args:
        model: on its device.
        source: with the split "train" as it was divided for the model.
        preprocessing: how photographs become tensors.
        metric: of distances, the one that the triplet loss shaped.
        thumbnail_px: the longer side of thumbnails; 0 for none.
        max_images: of which each class has an even share; None for all.
        root: the folder that paths are kept relative to, where they lie in it.
        batch_size: images at once.
        num_workers: processes that read images; 0 for this one.
        cache: of the images; they are kept on disk at most.
        console: for the bar.

    Raises:
        ArgumentError: `max_images` is fewer than the classes.
        DataError: an image cannot be read any more.
    """
    records = even_share(source.splits["train"], max_images=max_images)
    loader = build_eval_loader(
        records,
        read=source.read,
        preprocessing=preprocessing,
        batch_size=batch_size,
        num_workers=num_workers,
        cache="disk" if cache == "disk" else "none",
    )
    with Meter("gallery", total=len(records) * (2 if thumbnail_px else 1), console=console) as meter:
        embeddings = _embed(model, loader, advance=meter.advance)
        thumbnails = (
            make_thumbnails(records, read=source.read, side_px=thumbnail_px, advance=meter.advance)
            if thumbnail_px
            else ()
        )
    paths, folder = relative_paths([record.path for record in records], root=root)
    return Gallery(
        embeddings=half_precision(embeddings),
        labels=np.array([record.label for record in records], np.int64),
        image_ids=tuple(record.image_id for record in records),
        paths=paths,
        root=folder,
        keep_rate=model.keep_rate,
        metric=metric,
        thumbnails=tuple(thumbnails),
        thumbnail_px=thumbnail_px,
    )


def metric_of(config: Config) -> Metric:
    """Return the metric that a run's triplet loss shaped, or would have."""
    return "cosine" if config.loss.triplet_normalize else "euclidean"


def root_of(argument: str | Path) -> Path | None:
    """Return the folder that a data argument is or whose file it is; None where it names no place on disk."""
    path = Path(argument)
    if path.is_dir():
        return path
    return path.parent if path.is_file() else None


def _embed(
    model: FineGrainedClassifier, loader: Iterable[Batch], *, advance: Callable[[int], None]
) -> NDArray[np.float32]:
    """Return the embedding (n, D) of every image of a loader that gives them in order."""
    device = next(model.parameters()).device
    parts = []
    with evaluation_mode(model), torch.inference_mode():
        for batch in loader:
            output: ModelOutput = model(batch.images.to(device, non_blocking=True))
            parts.append(output.embedding.float().cpu().numpy())  # (B, D)
            advance(len(batch.indices))
    return np.concatenate(parts)
