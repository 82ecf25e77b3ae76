"""Controls: simple models that ask whether a data set can be solved without looking closely."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError


def color_histogram(image: Any, *, bins: int = 8) -> NDArray[np.float64]:
    """Return the joint RGB histogram of an image, (bins^3,), summing to 1; where a colour stands is forgotten.

    `image` is an RGB PIL image or a uint8 array (h, w, 3).
    """
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ArgumentError(
            f"expected a uint8 RGB image (h, w, 3), but got {pixels.dtype} {pixels.shape}: convert it first"
        )
    levels = pixels.reshape(-1, 3).astype(np.int64) * bins // 256  # (h*w, 3)
    cells = (levels[:, 0] * bins + levels[:, 1]) * bins + levels[:, 2]
    return np.bincount(cells, minlength=bins**3) / len(cells)


def color_histogram_accuracy(
    train_images: Iterable[Any],
    train_labels: Sequence[int],
    test_images: Iterable[Any],
    test_labels: Sequence[int],
    *,
    bins: int = 8,
) -> float:
    """Return the top-1 accuracy of multinomial logistic regression on standardised colour histograms.

    The control that asks whether colour alone would do: near chance, a model that does well has seen shape.

    Args:
        train_images: RGB PIL images or uint8 arrays (h, w, 3), of any sizes; read one by one.
        train_labels: their labels.
        test_images: the images to be told apart.
        test_labels: their labels.
        bins: levels of each of the three channels; bins^3 features.

    Raises:
        ArgumentError: an image is not uint8 RGB.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = np.stack([color_histogram(image, bins=bins) for image in train_images])  # (n, bins^3)
    test = np.stack([color_histogram(image, bins=bins) for image in test_images])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    classifier.fit(train, train_labels)
    return float(classifier.score(test, test_labels))
