"""The CLS row of an attention map, computed beside fused attention, without the N x N matrix."""

import torch
from torch import Tensor


@torch.no_grad()
def cls_attention_rows(queries: Tensor, keys: Tensor, *, scale: float, num_prefix: int) -> Tensor:
    """Return softmax(scale q_cls k^T) over all N tokens, patch columns only.

    In float32 whatever the inputs' dtype (float64 stays), also under autocast. The rows rank patches, so they carry no
    gradient.

    Args:
        queries: (B, H, N, d) after q norm and rotary positions where the block has them; only CLS, at 0, is read.
        keys: (B, H, N, d) likewise.
        scale: usually d ** -0.5.
        num_prefix: keys of CLS and register tokens, left out of the result but not of the softmax.

    Returns:
        (B, H, P) float32.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        scores = queries[:, :, :1].to(dtype) @ keys.to(dtype).mT * scale  # (B, H, 1, N)
        return scores.softmax(-1)[:, :, 0, num_prefix:]
