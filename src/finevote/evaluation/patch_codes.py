"""Features that need no weights and no labels: what small patches of a picture look like, and roughly where.

Patches of all pictures are whitened and clustered; a picture is described by how much, in each ninth of it, its most
similar patch looks like each cluster's centre (Coates, Ng and Lee, "An Analysis of Single-Layer Networks in
Unsupervised Feature Learning", 2011, with maxima in place of sums).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

NUM_CODES = 512
_PATCH = 12  # px, of the 64 px of a thumbnail
_STRIDE = 2
_NUM_WHITENED = 80
_NUM_SAMPLED = 30_000
_NUM_FITTED = 4_000  # pictures that the reduction is fitted to
_GRID = 3
_THRESHOLD = 0.25  # cosine below which a patch does not look like a centre at all
_CONTRAST_FLOOR = 1e-3
_WHITENING_FLOOR = 0.1
_BATCH = 32


def patch_features(
    thumbnails: NDArray[np.uint8],
    *,
    num_features: int = 512,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Return features of unit variance of pictures and of their mirror images, (2, n, at most `num_features`).

    Args:
        thumbnails: (n, 64, 64, 3), two or more.
        num_features: kept by a principal component analysis; below n.
        seed: of the patches that are sampled and of the clustering.
        advance: called with the number of pictures done since its last call.
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    images = torch.from_numpy(thumbnails).permute(0, 3, 1, 2)  # (n, 3, 64, 64) uint8
    codebook = learn_codebook(images, seed=seed)
    fitted = np.sort(np.random.default_rng(seed).permutation(len(images))[:_NUM_FITTED])
    scaler = StandardScaler()
    standardised = scaler.fit_transform(_encode(codebook, images[fitted]))
    num_kept = min(num_features, len(fitted) - 1, standardised.shape[1])
    pca = PCA(num_kept, whiten=True, random_state=seed)
    with np.errstate(invalid="ignore"):  # pictures that are all the same have no variance to divide by
        pca.fit(standardised)
    reduced = np.zeros((2, len(images), pca.n_components_), np.float32)
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        for view, pictures in enumerate((batch, batch.flip(3))):
            reduced[view, start : start + len(batch)] = pca.transform(scaler.transform(codebook.encode(pictures)))
        if advance is not None:
            advance(len(batch))
    return reduced


@dataclass(frozen=True)
class Codebook:
    """Patches are centred, scaled to unit variance, whitened and compared by cosine with `centres` (K, d).

    `whitening` (d, 3 x 12 x 12) is applied after `mean` was taken off.
    """

    mean: Tensor
    whitening: Tensor
    centres: Tensor

    def encode(self, images: Tensor) -> NDArray[np.float32]:
        """Return (B, 9 K): the likeness of each ninth of an image (B, 3, 64, 64) uint8 to each centre."""
        pixels = images.float() / 255
        kernels = self.whitening.reshape(len(self.whitening), 3, _PATCH, _PATCH)
        mean = F.avg_pool2d(pixels.mean(1, keepdim=True), _PATCH, _STRIDE)  # (B, 1, r, r) of each patch
        square = F.avg_pool2d(pixels.square().mean(1, keepdim=True), _PATCH, _STRIDE)
        deviation = ((square - mean.square()).clamp_min(0) + _CONTRAST_FLOOR).sqrt()
        whitened = F.conv2d(pixels, kernels, stride=_STRIDE)  # (B, d, r, r): linear, so centring comes after
        whitened = (whitened - mean * _column(self.whitening.sum(1))) / deviation
        whitened = whitened - _column(self.whitening @ self.mean)
        directions = F.normalize(whitened, dim=1)
        likeness = F.relu(F.conv2d(directions, self.centres[:, :, None, None]) - _THRESHOLD)  # (B, K, r, r)
        return F.adaptive_max_pool2d(likeness, _GRID).flatten(1).numpy()


def learn_codebook(images: Tensor, *, seed: int) -> Codebook:
    """Whiten and cluster patches drawn at random from images (n, 3, 64, 64) uint8."""
    from sklearn.cluster import MiniBatchKMeans

    patches = _sample_patches(images, seed=seed)
    mean = patches.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((patches - mean).T))
    kept = slice(None, -_NUM_WHITENED - 1, -1)  # the largest first
    whitening = axes[:, kept] / np.sqrt(variances[kept] + _WHITENING_FLOOR)
    whitened = (patches - mean) @ whitening
    directions = whitened / np.maximum(np.linalg.norm(whitened, axis=1, keepdims=True), 1e-6)
    with warnings.catch_warnings():  # pictures without contrast have fewer different patches than centres: no harm
        warnings.filterwarnings("ignore", message="Number of distinct clusters")
        clusters = MiniBatchKMeans(NUM_CODES, batch_size=4096, n_init=1, max_iter=15, random_state=seed).fit(directions)
    centres = torch.from_numpy(np.asarray(clusters.cluster_centers_, np.float32))
    return Codebook(
        mean=torch.from_numpy(mean.astype(np.float32)),
        whitening=torch.from_numpy(np.ascontiguousarray(whitening.T, np.float32)),
        centres=F.normalize(centres, dim=1),
    )


def _sample_patches(images: Tensor, *, seed: int) -> NDArray[np.float64]:
    """Return (30,000, 3 x 12 x 12) patches, each around 0 and of unit variance."""
    generator = np.random.default_rng(seed)
    which = generator.integers(0, len(images), _NUM_SAMPLED)
    corners = generator.integers(0, images.shape[-1] - _PATCH + 1, (_NUM_SAMPLED, 2))
    pixels = images.numpy()
    patches = (
        np.stack(
            [
                pixels[image, :, row : row + _PATCH, column : column + _PATCH].ravel()
                for image, (row, column) in zip(which, corners, strict=True)
            ]
        )
        / 255.0
    )
    patches -= patches.mean(axis=1, keepdims=True)
    return np.asarray(patches / np.sqrt(patches.var(axis=1, keepdims=True) + _CONTRAST_FLOOR))


def _encode(codebook: Codebook, images: Tensor) -> NDArray[np.float32]:
    return np.concatenate([codebook.encode(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)])


def _column(values: Tensor) -> Tensor:
    return values[:, None, None]
