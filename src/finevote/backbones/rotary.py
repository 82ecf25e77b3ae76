"""Rotary positions: queries and keys are turned by their patch's place, wherever in a sequence it comes to stand.

A table holds one row for each patch, and row 0 for tokens that have no place (prefix tokens, merged ones): it turns by
nothing. Trunk layers read the table in order; refinement and key stages, which are copies of a trunk layer, look up the
patches that were selected.
"""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import RotaryEmbeddingMixed, apply_rot_embed_cat, get_mixed_freqs
from torch import Tensor, nn
from torch.nn import functional as F

NO_PATCH = -1  # the patch number of a token that has no place


class FixedRotation(nn.Module):
    """The same rotation for every head.

    Args:
        turns: (P, 2d), sine and cosine for each patch.
    """

    table: Tensor

    def __init__(self, turns: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", _with_rest(turns[None]), persistent=False)  # (1, 1 + P, 2d)

    def forward(self) -> Tensor:
        """Return the table (1, 1 + P, 2d)."""
        return self.table


class LearnedRotation(nn.Module):
    """One layer's rotations for each head, from frequencies that are learnt.

    Heo et al., "Rotary Position Embedding for Vision Transformer", 2024.

    Args:
        frequencies: (2, H, d / 2), for each axis.
        places: (2, P), the patches' coordinates on these axes.
    """

    places: Tensor

    def __init__(self, frequencies: Tensor, places: Tensor) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(frequencies.detach().clone())
        self.register_buffer("places", places.clone(), persistent=False)

    def forward(self) -> Tensor:
        """Return the table (H, 1 + P, 2d)."""
        return _with_rest(get_mixed_freqs(self.frequencies, *self.places))


def rotations_of(vit: Any) -> Sequence[nn.Module | None]:
    """Return the rotation of each block of a timm model; None where it has none.

    Random shifts and scales of the coordinates, which timm can draw in training, are left off: positions are the same
    in training and in use.
    """
    rope, depth = getattr(vit, "rope", None), len(vit.blocks)
    if rope is None:
        return [None] * depth
    if isinstance(rope, RotaryEmbeddingMixed):
        places = torch.stack([rope.t_x, rope.t_y])
        return [LearnedRotation(rope.freqs[:, block], places) for block in range(depth)]
    fixed = hasattr(rope, "feat_shape")
    turns = rope.eval().get_embed() if fixed else rope.eval().get_embed(shape=vit.patch_embed.grid_size)
    return [FixedRotation(turns)] * depth  # one module, shared: the table is the same in every block


def look_up(table: Tensor, patches: Tensor | None, *, num_prefix: int) -> Tensor:
    """Return the rotation of every token of a sequence, to be broadcast against (B, H, N, d).

    Args:
        table: (H or 1, 1 + P, 2d).
        patches: (B, N - num_prefix), the patch number of each token after the prefix, or NO_PATCH; None for all
            patches in order.
        num_prefix: tokens before them, which are not turned.
    """
    if patches is None:
        return torch.cat([table[:, :1].expand(-1, num_prefix, -1), table[:, 1:]], dim=1)  # (H or 1, N, 2d)
    rows = F.pad(patches + 1, (num_prefix, 0))  # (B, N)
    return table[:, rows].transpose(0, 1)  # (B, H or 1, N, 2d)


def take_turns(rotation: Tensor, positions: Tensor) -> Tensor:
    """Return the rotation (B, H or 1, n, 2d) of the tokens at positions (B, n) of a sequence that `look_up` was for."""
    rotation = rotation.expand(positions.shape[0], *rotation.shape[-3:])  # (B, H or 1, N, 2d)
    return rotation.gather(2, positions[:, None, :, None].expand(-1, rotation.shape[1], -1, rotation.shape[3]))


def rotate(tokens: Tensor, rotation: Tensor, *, halves: bool) -> Tensor:
    """Turn queries or keys (B, H, N, d); with `halves` channel i is paired with i + d / 2, else each with the next."""
    return apply_rot_embed_cat(tokens, rotation, half=halves)  # type: ignore[no-any-return]


def _with_rest(turns: Tensor) -> Tensor:
    """Put the row of no rotation, sine 0 and cosine 1, before the rows of (H, P, 2d)."""
    still = torch.cat([torch.zeros_like(turns[:, :1, ::2]), torch.ones_like(turns[:, :1, ::2])], dim=-1)  # (H, 1, 2d)
    return torch.cat([still, turns], dim=1)
