"""Batch-hard triplet loss: pull the farthest positive closer than the nearest negative."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_EPSILON = 1e-12  # inside the root, so that coinciding embeddings have a finite gradient


def pairwise_distances(embeddings: Tensor) -> Tensor:
    """Return Euclidean distances (n, n) in float32 of embeddings (n, D), sqrt(d^2 + 1e-12)."""
    exact = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    return (exact.square() + _EPSILON).sqrt()


def batch_hard_triplet(
    embeddings: Tensor, labels: Tensor, *, margin: float | Literal["soft"], normalize: bool = False
) -> Tensor:
    """Return the batch-hard triplet loss over an explicit full set (Hermans et al. 2017, Eq. 5).

    For each anchor: relu(margin + farthest positive - nearest negative), or softplus(farthest - nearest) when the
    margin is "soft"; the mean over the anchors that have both. Zero, with a zero gradient, where no anchor has.
    Mining does not decompose over parts of a batch: give the whole batch of all ranks.

    Args:
        embeddings: (n, D) any float dtype; distances are float32, not squared.
        labels: (n,) int64.
        margin: a distance, or "soft".
        normalize: compare unit-length embeddings.

    Returns:
        A float32 scalar.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = embeddings.float()
        if normalize:
            embeddings = F.normalize(embeddings, dim=1)
        distances = pairwise_distances(embeddings)  # (n, n)
        same = labels[:, None] == labels[None]  # (n, n)
        positive = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        farthest = distances.masked_fill(~positive, -torch.inf).amax(1)  # (n,)
        nearest = distances.masked_fill(same, torch.inf).amin(1)  # (n,)
        anchors = positive.any(1) & ~same.all(1)  # (n,)
        gap = torch.where(anchors, farthest, 0.0) - torch.where(anchors, nearest, 0.0)
        losses = F.softplus(gap) if margin == "soft" else F.relu(margin + gap)
        return (losses * anchors).sum() / anchors.sum().clamp_min(1)


def embedding_spread(embeddings: Tensor) -> Tensor:
    """Return the root mean square distance to the centre over the root mean square length: near 0 is collapse.

    Args:
        embeddings: (n, D).

    Returns:
        A float32 scalar in [0, 1].
    """
    embeddings = embeddings.float()
    spread = (embeddings - embeddings.mean(0)).square().sum(1).mean()
    return (spread / embeddings.square().sum(1).mean().clamp_min(_EPSILON)).sqrt()
