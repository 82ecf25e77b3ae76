"""Classes by the nearest training images: weighted votes over cosine similarities, as DINO is evaluated.

The votes of the k nearest for class c sum exp(s_i / t) over neighbours i of that class, with s_i the cosine similarity
and t the temperature (Wu et al. 2018, section 3.4; Caron et al. 2021, appendix).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from finevote.errors import ArgumentError

TEMPERATURE = 0.07
NUM_NEIGHBOURS = (5, 10, 20, 50)  # that are tried
_QUERIES_AT_ONCE = 1024  # bounds the memory of similarities


def unit_parts(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return rows (n, D_1 + D_2 + ...) of length 1, in which each part (n, D_i) has the same length.

    The dot product of two rows is then the mean of their parts' cosines: tokens of a larger norm do not outvote others.
    """
    units = [F.normalize(torch.from_numpy(part), dim=1) for part in parts]
    rows: NDArray[np.float32] = (torch.cat(units, dim=1) / len(units) ** 0.5).numpy()
    return rows


def classify_by_neighbours(
    train: NDArray[np.float32],
    labels: NDArray[np.int64],
    queries: NDArray[np.float32],
    *,
    num_neighbours: Sequence[int],
    num_classes: int,
    temperature: float = TEMPERATURE,
    device: str = "cpu",
) -> NDArray[np.int64]:
    """Return the classes (K, m) of queries, a row for each of K numbers of neighbours; equal votes: the lower class.

    Args:
        train: (n, D) rows of length 1.
        labels: (n,) their classes.
        queries: (m, D) rows of length 1.
        num_neighbours: k to try; more than n are n.
        num_classes: C.
        temperature: t.
        device: where similarities are computed.

    Raises:
        ArgumentError: there are no training rows, or a k is below 1.
    """
    if not len(train) or min(num_neighbours) < 1:
        raise ArgumentError(f"{min(num_neighbours)} of {len(train)} neighbours: at least one is needed of each")
    bank, bank_labels = torch.from_numpy(train).to(device), torch.from_numpy(labels).to(device)
    num_kept = min(max(num_neighbours), len(train))
    found = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = torch.from_numpy(queries[start : start + _QUERIES_AT_ONCE])
        similarities, rows = (some.to(device) @ bank.mT).topk(num_kept, dim=1)  # (q, k), nearest first
        weights, classes = (similarities / temperature).exp(), bank_labels[rows]
        found.append(
            torch.stack(
                [count_votes(weights[:, :k], classes[:, :k], num_classes=num_classes).argmax(1) for k in num_neighbours]
            )
        )
    empty = np.zeros((len(num_neighbours), 0), np.int64)
    return torch.cat(found, dim=1).cpu().numpy() if len(queries) else empty


def count_votes(weights: Tensor, classes: Tensor, *, num_classes: int) -> Tensor:
    """Return the votes (q, C) of neighbours with weights (q, k) and classes (q, k)."""
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, classes, weights)
