"""Attention rollout: how much of every patch reaches CLS through all layers, from their full attention matrices."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_NUM_ENTRIES = 2**25  # of the matrices of all images at once: 128 MiB each


@torch.no_grad()
def attention_rollout(backbone: Any, images: Tensor) -> Tensor:
    """Return the CLS row of the rollout of all layers, (B, P) float32; prefix tokens are left out, not renormalised.

    It is a pass of its own, in which every block sees every token: no patch leaves, and nobody votes. A summary token
    listens and is never heard, so its column is zero. Where there are many tokens, few images are passed at once.

    Args:
        backbone: gives `embed`, `layers` and `num_prefix`; of a voting classifier the trunk, in evaluation mode.
        images: (B, 3, rows, columns), normalised.
    """
    num_tokens = backbone.num_prefix + backbone.num_patches
    parts = images.split(max(1, _NUM_ENTRIES // num_tokens**2))  # type: ignore[no-untyped-call]
    return torch.cat([_roll_out(backbone, part) for part in parts])


def add_layer(rolled: Tensor, attention: Tensor) -> Tensor:
    """Return the rollout with one more layer and its residual branch (Abnar and Zuidema 2020, eq. 1 and section 3).

        R_l = A'_l R_(l-1),    A'_l = rows of (A_l + I), each divided by its sum,    R_0 = I

    Args:
        rolled: (B, N, N) R_(l-1).
        attention: (B, N, N) A_l, averaged over heads.

    Returns:
        (B, N, N); rows sum to 1.
    """
    mixed = attention + torch.eye(attention.shape[-1], device=attention.device, dtype=attention.dtype)  # (B, N, N)
    return mixed / mixed.sum(-1, keepdim=True) @ rolled


def mean_attention(queries: Tensor, keys: Tensor, *, scale: float) -> Tensor:
    """Return softmax(scale q k^T) averaged over the heads, (B, N, n), in float32 (float64 stays).

    One head's matrix is in memory at a time.

    Args:
        queries: (B, H, N, d) after q norm and rotary positions where the block has them.
        keys: (B, H, n, d) likewise.
        scale: usually d ** -0.5.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    num_heads = queries.shape[1]
    total = queries.new_zeros(queries.shape[0], queries.shape[2], keys.shape[2], dtype=dtype)
    with torch.autocast(queries.device.type, enabled=False):
        for head in range(num_heads):
            scores = queries[:, head].to(dtype) @ keys[:, head].to(dtype).mT * scale  # (B, N, n)
            total += scores.softmax(-1)
    return total / num_heads


def _roll_out(backbone: Any, images: Tensor) -> Tensor:
    num_prefix = backbone.num_prefix
    tokens = backbone.embed(images)  # (B, N, D)
    num_images, num_tokens, _ = tokens.shape
    rolled = torch.eye(num_tokens, device=tokens.device).expand(num_images, -1, -1)  # (B, N, N)
    for layer in backbone.layers:
        reading = layer.read(tokens, num_prefix=num_prefix, with_rows=False)
        matrix = mean_attention(reading.heads.queries, reading.heads.keys, scale=layer.attn.scale)  # (B, N, n)
        rolled = add_layer(rolled, F.pad(matrix, (num_tokens - matrix.shape[2], 0)).to(rolled.dtype))
        tokens = layer.write(reading)
    return rolled[:, 0, num_prefix:]
