"""The inside of timm's attention modules, as the three things a layer needs: check it, enter it, leave it."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from timm.layers import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import Tensor, cat, nn
from torch.nn import functional as F

from finevote.errors import UnsupportedModelError

_READABLE = (Attention, EvaAttention, AttentionRope)


class Part(IntEnum):
    """What attention makes of its tokens, in the order in which fused weights hold it."""

    QUERIES = 0
    KEYS = 1
    VALUES = 2


def check_attention(attention: Any) -> None:
    """Raise UnsupportedModelError unless queries and keys can be read from this module."""
    if type(attention) not in _READABLE:
        names = ", ".join(f"`{readable.__name__}`" for readable in _READABLE)
        raise UnsupportedModelError(
            f"attention {type(attention).__name__} is not supported: choose a timm model with one of {names}"
        )


def project(attention: Any, tokens: Tensor, parts: Sequence[Part] = tuple(Part)) -> list[Tensor]:
    """Return the wanted parts, (B, H, N, d) each, of normed tokens (B, N, D); q and k norms are applied.

    Grouped keys and values are repeated, so that each query head has its own.
    """
    if attention.qkv is None:
        own = {Part.QUERIES: attention.q_proj, Part.KEYS: attention.k_proj, Part.VALUES: attention.v_proj}
        projected: Sequence[Tensor] = [own[part](tokens) for part in parts]
    else:
        projected = _project_fused(attention, tokens, parts).chunk(len(parts), dim=-1)
    norms = {Part.QUERIES: attention.q_norm, Part.KEYS: attention.k_norm, Part.VALUES: nn.Identity()}
    heads = [norms[part](_split_heads(flat, attention.head_dim)) for part, flat in zip(parts, projected, strict=True)]
    return [_share(some, num_heads=attention.num_heads) for some in heads]


def join_heads(attention: Any, tokens: Tensor, mixed: Tensor) -> Tensor:
    """Return the attention's output (B, N, D) from mixed values (B, H, N, d): norm, gate, output projection.

    The gate is computed from the same normed `tokens` (B, N, D) that the queries came from.
    """
    joined = attention.norm(mixed.transpose(1, 2).flatten(2))  # (B, N, H d)
    if attention.gate is not None:
        joined = joined * attention.gate(tokens).sigmoid()
    return attention.proj(joined)  # type: ignore[no-any-return]


def _split_heads(part: Tensor, head_dim: int) -> Tensor:
    """Return (B, H, N, d) of (B, N, H d)."""
    return part.reshape(*part.shape[:2], -1, head_dim).transpose(1, 2)


def _share(heads: Tensor, *, num_heads: int) -> Tensor:
    """Repeat grouped keys or values (B, G, N, d) to (B, H, N, d); those that are not grouped are not copied."""
    num_sharing = num_heads // heads.shape[1]
    return heads if num_sharing == 1 else heads.repeat_interleave(num_sharing, dim=1)


def _project_fused(attention: Any, tokens: Tensor, parts: Sequence[Part]) -> Tensor:
    """Return neighbouring parts of q, k and v side by side, (B, N, len(parts) H d).

    EVA keeps their biases apart, that of the keys at zero.
    """
    weight, bias = attention.qkv.weight, attention.qkv.bias  # (3 H d, D), (3 H d,) or None
    if getattr(attention, "q_bias", None) is not None:
        bias = cat((attention.q_bias, attention.k_bias, attention.v_bias))
    if len(parts) < len(Part):
        width = len(weight) // len(Part)
        rows = slice(parts[0] * width, (parts[-1] + 1) * width)
        weight, bias = weight[rows], None if bias is None else bias[rows]
    return F.linear(tokens, weight, bias)
