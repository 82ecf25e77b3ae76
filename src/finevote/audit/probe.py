"""What the labels are judged by: a backbone's embeddings, or patch features where no weights are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finevote.config import config_from_values
from finevote.data.fingerprints import Fingerprint
from finevote.errors import ArgumentError
from finevote.evaluation.label_errors import NUM_FITS, Judgement, judge_labels
from finevote.evaluation.patch_codes import patch_features
from finevote.probe.features import Extractor
from finevote.progress import Meter
from finevote.types import DataSource, Record

_IMAGE_SIZE_PX = 224


def check_backbone(backbone: str | None, weights: str | None) -> None:
    """Raise ArgumentError for weights without a backbone, or a backbone with random weights."""
    if backbone is None and weights is not None:
        raise ArgumentError(f"--weights {weights} needs the --backbone that they are of")
    if backbone is not None and weights == "none":
        raise ArgumentError(
            f"--backbone {backbone} with random weights sees nothing: give --weights FILE, or leave both"
        )


def embed(source: DataSource, records: Sequence[Record], *, backbone: str, weights: str) -> NDArray[np.float32]:
    """Return the embeddings (n, D) of images by a frozen backbone at 224 px.

    Raises:
        ArgumentError, UnsupportedModelError, WeightsError: as `build_backbone`.
    """
    settings = {
        "data": {"image_size": _IMAGE_SIZE_PX, "num_workers": 0},
        "model": {"backbone": backbone, "weights": weights},
    }
    config = config_from_values(settings, source="the audit's backbone")
    return Extractor(config, whole_image=True).features(source, records).cls


def code_patches(prints: Sequence[Fingerprint]) -> NDArray[np.float32]:
    """Return patch features (2, n, d) of thumbnails and their mirror images."""
    thumbnails = np.stack([one.thumbnail for one in prints])
    with Meter("code patches", total=len(prints)) as meter:
        return patch_features(thumbnails, advance=meter.advance)


def judge(
    views: NDArray[np.float32], labels: NDArray[np.int64], units: Sequence[int], *, num_classes: int
) -> Judgement:
    """Return which labels are likely wrong, with a progress bar."""
    with Meter("judge labels", total=NUM_FITS, unit="fits") as meter:
        return judge_labels(views, labels, units, num_classes=num_classes, advance=meter.advance)
