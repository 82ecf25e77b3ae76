"""How alike two layers are: centred kernel alignment (CKA) of linear kernels, from features of the same images.

Two estimates of the Hilbert-Schmidt independence criterion (HSIC) that it is made of: the standard one, which is biased
upwards where images are few, and an unbiased one, averaged over minibatches. Everything is in float64.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError

FEWEST_IMAGES = 4  # that the unbiased estimate can be made from
_LEAST_SPREAD = 1e-7  # of the features' size: less is the rounding of float32, not a difference between images
Features = NDArray[np.floating[Any]]
Matrix = NDArray[np.float64]


def cka_map(layers: Sequence[Features]) -> Matrix:
    """Return linear CKA between all layers, (S, S), from features (n, D) of the same n images, one array a layer.

    HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of K = X X^T and L = Y Y^T, in [0, 1]; over centred columns that is
    ||Y^T X||^2 / (||X^T X|| ||Y^T Y||), in Frobenius norms (Kornblith et al. 2019, arXiv 1905.00414, section 3).
    Turning, mirroring or scaling a layer changes nothing. NaN where a layer is the same for every image.

    Raises:
        ArgumentError: a layer is not (n, D) and finite, they are not of the same images, or there are none.
    """
    kernels = [features @ features.T for features in _prepared(layers)]
    return _aligned(_all_pairs(hsic, kernels))


def minibatch_cka_map(layers: Sequence[Features], *, batch_size: int, seed: int) -> Matrix:
    """Return linear CKA between all layers, (S, S), by the unbiased HSIC averaged over minibatches.

    mean_i HSIC_1(K_i, L_i) / sqrt(mean_i HSIC_1(K_i, K_i) mean_i HSIC_1(L_i, L_i)) (Nguyen et al. 2021, arXiv
    2010.15327, equation 2). Layers that have nothing to do with each other come to 0 on average, however few the
    images, where the standard estimate rises with the width; so values can lie a little below 0, or above 1.

    Args:
        layers: as for `cka_map`.
        batch_size: images of a minibatch, 4 or more; all images are cut as evenly as can be.
        seed: of the order that images are cut in: a split is ordered by class, and a minibatch must not be.

    Raises:
        ArgumentError: as `cka_map`; or there are fewer than four images, or in a minibatch.
    """
    prepared = _prepared(layers)
    num_images = len(prepared[0])
    if min(batch_size, num_images) < FEWEST_IMAGES:
        raise ArgumentError(
            f"{num_images} images in minibatches of {batch_size}: the unbiased CKA takes {FEWEST_IMAGES} or more of "
            "both"
        )
    order = np.random.default_rng(seed).permutation(num_images)
    num_batches = min(-(-num_images // batch_size), num_images // FEWEST_IMAGES)
    sums = np.zeros((len(prepared), len(prepared)))
    for rows in np.array_split(order, num_batches):
        sums += _all_pairs(unbiased_hsic, [features[rows] @ features[rows].T for features in prepared])
    return _aligned(sums / num_batches)


def hsic(first: Matrix, second: Matrix) -> float:
    """Return the standard, biased HSIC of two kernels (n, n), tr(K H L H) / (n - 1)^2 with H = I - 1 1^T / n.

    Source: Gretton et al. 2005, as Kornblith et al. 2019 use it (arXiv 1905.00414, equation 3).
    """
    centred = first - first.mean(axis=0) - first.mean(axis=1, keepdims=True) + first.mean()
    return float((centred * second).sum()) / max(len(first) - 1, 1) ** 2  # H on one side is enough: H H = H


def unbiased_hsic(first: Matrix, second: Matrix) -> float:
    """Return the unbiased HSIC of two kernels (n, n), n >= 4; it can be negative.

    (tr(K L) + 1^T K 1 1^T L 1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1^T K L 1) / (n (n - 3)), of K and L less their
    diagonals. Source: Song et al. 2012, as HSIC_1 in Nguyen et al. 2021 (arXiv 2010.15327, equation 3).
    """
    n = len(first)
    k, others = _without_diagonal(first), _without_diagonal(second)
    k_sums, other_sums = k.sum(axis=1), others.sum(axis=1)
    whole = float(k_sums.sum() * other_sums.sum()) / ((n - 1) * (n - 2))
    total = float((k * others).sum()) + whole - 2 * float(k_sums @ other_sums) / (n - 2)
    return total / (n * (n - 3))


def _prepared(layers: Sequence[Features]) -> list[Matrix]:
    """Return each layer centred, with a mean square of 1, or 0 where it is the same for every image.

    CKA changes by neither, and what all images share would cost precision.
    """
    found = [np.asarray(layer, np.float64) for layer in layers]
    shapes = [layer.shape for layer in found]
    if not found or len({len(layer) for layer in found}) > 1 or any(len(s) != 2 or 0 in s for s in shapes):
        raise ArgumentError(f"layers of shapes {shapes} must be one or more of (images, width), of the same images")
    if bad := [number for number, layer in enumerate(found) if not np.isfinite(layer).all()]:
        raise ArgumentError(f"layer {bad[0]} of {len(found)} has features that are not finite: the model diverged")
    prepared = []
    for layer in found:
        centred = layer - layer.mean(axis=0)
        spread, size = (float(np.sqrt((values**2).mean())) for values in (centred, layer))
        prepared.append(centred / spread if spread > _LEAST_SPREAD * size else np.zeros_like(layer))
    return prepared


def _all_pairs(estimate: Callable[[Matrix, Matrix], float], kernels: Sequence[Matrix]) -> Matrix:
    """Return the estimate for all pairs of kernels, (S, S), symmetric."""
    values = np.zeros((len(kernels), len(kernels)))
    for row, first in enumerate(kernels):
        for column in range(row, len(kernels)):
            values[row, column] = values[column, row] = estimate(first, kernels[column])
    return values


def _aligned(values: Matrix) -> Matrix:
    """Return HSIC (S, S) divided by the roots of its diagonal; NaN beside a layer that is not even like itself."""
    own = np.where(values.diagonal() > 0, values.diagonal(), np.nan)
    return np.asarray(values / np.sqrt(own[:, None] * own))


def _without_diagonal(kernel: Matrix) -> Matrix:
    emptied = kernel.copy()
    np.fill_diagonal(emptied, 0.0)
    return emptied
