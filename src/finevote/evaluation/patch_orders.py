"""Patches in order of importance: by the votes, by any map, or at random."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from finevote.types import Votes


def order_patches(*maps: Tensor) -> Tensor:
    """Return patch numbers (B, P), highest first: by the first map, equals by the next, and then the lower number.

    Args:
        *maps: (B, P) each.
    """
    order = torch.arange(maps[0].shape[1], device=maps[0].device).expand_as(maps[0])  # (B, P)
    for values in reversed(maps):
        order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return order


def order_by_votes(votes: Votes) -> Tensor | None:
    """Return the patches (B, P), the most voted first; None where no final votes are cast, without a second vote.

    Patches with equally many final votes, most have none, come by their enhanced ballots summed over the layers.
    """
    final = votes.per_patch()  # (B, P)
    if not final.any():
        return None
    return order_patches(final, votes.enhanced.sum(1))


def random_orders(image_ids: Sequence[str], num_patches: int, *, num_draws: int, seed: int = 0) -> Tensor:
    """Return (num_draws, B, P) permutations; those of an image depend on its id and the seed alone."""
    generators = [np.random.default_rng([seed, crc32(image_id.encode())]) for image_id in image_ids]
    drawn = [[generator.permutation(num_patches) for _ in range(num_draws)] for generator in generators]
    return torch.from_numpy(np.array(drawn, np.int64).reshape(len(image_ids), num_draws, num_patches)).transpose(0, 1)
