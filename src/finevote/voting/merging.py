"""What a layer does not forward can still be heard: its patches merge into one token."""

import torch
from torch import Tensor


def merge_unselected(tokens: Tensor, scores: Tensor, selected: Tensor) -> Tensor:
    """Return z = sum(s_i x_i) / (sum(s_i) + 1e-6) over the patches that were not selected (docs/method.md, 5).

    Args:
        tokens: (B, P, D) the layer's patch tokens x.
        scores: (B, P) enhanced ballots s; a learnt kernel may make one negative, which counts as 0.
        selected: (B, k) patch numbers left out of the sum.

    Returns:
        (B, 1, D) in the dtype of `tokens`.
    """
    scores = scores.to(torch.promote_types(tokens.dtype, scores.dtype))
    weights = scores.clamp_min(0).scatter(1, selected, 0.0)  # (B, P)
    weights = weights / (weights.sum(1, keepdim=True) + 1e-6)
    return weights[:, None].to(tokens.dtype) @ tokens
