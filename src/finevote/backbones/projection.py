"""The inside of timm's attention modules, as the three things a layer needs: check it, enter it, leave it."""

from typing import Any

from timm.layers import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import Tensor, cat
from torch.nn import functional as F

from finevote.errors import UnsupportedModelError

_READABLE = (Attention, EvaAttention, AttentionRope)


def check_attention(attention: Any) -> None:
    """Raise UnsupportedModelError unless queries and keys can be read from this module."""
    if type(attention) not in _READABLE:
        names = ", ".join(f"`{readable.__name__}`" for readable in _READABLE)
        raise UnsupportedModelError(
            f"attention {type(attention).__name__} is not supported: choose a timm model with one of {names}"
        )


def project(attention: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, (B, H, N, d) each, of normed tokens (B, N, D); q and k norms are applied.

    Grouped keys and values are repeated, so that each query head has its own.
    """
    parts: tuple[Tensor, ...]
    if attention.qkv is None:
        parts = (attention.q_proj(tokens), attention.k_proj(tokens), attention.v_proj(tokens))
    else:
        parts = _project_fused(attention, tokens).chunk(3, dim=-1)
    queries, keys, values = (_split_heads(part, attention.head_dim) for part in parts)
    queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    if (num_shared := queries.shape[1] // keys.shape[1]) > 1:
        keys, values = (part.repeat_interleave(num_shared, dim=1) for part in (keys, values))
    return queries, keys, values


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


def _project_fused(attention: Any, tokens: Tensor) -> Tensor:
    """Return q, k and v side by side, (B, N, 3 H d); EVA keeps their biases apart, that of the keys at zero."""
    if getattr(attention, "q_bias", None) is None:
        return attention.qkv(tokens)  # type: ignore[no-any-return]
    return F.linear(tokens, attention.qkv.weight, cat((attention.q_bias, attention.k_bias, attention.v_bias)))
