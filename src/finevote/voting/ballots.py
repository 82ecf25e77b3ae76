"""Every attention head votes for the patches it finds most telling; a ballot counts the votes."""

import torch
from torch import Tensor

from finevote.errors import ArgumentError


def cast_votes(rows: Tensor, *, num_votes: int) -> Tensor:
    """Return which patches each head votes for: exactly `num_votes` True a head.

    Equal attention is decided for the lower patch number, so the votes are the same on every device.

    Args:
        rows: (B, H, P) attention of CLS to the patches, any float dtype; only its order matters.
        num_votes: v, votes of one head.

    Returns:
        (B, H, P) bool.

    Raises:
        ArgumentError: a head has more votes than there are patches.
    """
    num_patches = rows.shape[-1]
    if not 1 <= num_votes <= num_patches:
        raise ArgumentError(
            f"num_votes_per_head={num_votes} must lie between 1 and the {num_patches} patches voted on: "
            "lower it or enlarge the image"
        )
    weakest = rows.topk(num_votes, dim=-1).values[..., -1:]  # (B, H, 1)
    above = rows > weakest  # (B, H, P)
    tied = rows == weakest  # (B, H, P)
    num_tied_wanted = num_votes - above.sum(-1, keepdim=True)  # (B, H, 1)
    return above | (tied & (tied.cumsum(-1) <= num_tied_wanted))


def count_ballots(rows: Tensor, *, num_votes: int) -> Tensor:
    """Return the ballot, count[i] = sum over h of [i in top-v of rows[h]] (IELT, Xu et al. 2023; docs/method.md, 2).

    Args:
        rows: (B, H, P) attention of CLS to the patches.
        num_votes: v, votes of one head.

    Returns:
        (B, P) float32, whole numbers, whatever the dtype of `rows`; each image's ballot sums to H x v.
    """
    return count_votes(cast_votes(rows, num_votes=num_votes))


def count_votes(head_votes: Tensor) -> Tensor:
    """Return how many heads voted for each patch, (B, P) float32, from their votes (B, H, P) bool."""
    return head_votes.sum(1, dtype=torch.float32)
