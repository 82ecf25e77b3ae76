"""Patches that hardly anybody votes for leave the trunk early, merged into one token (docs/method.md, 10)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.errors import ArgumentError
from finevote.types import LayerVote
from finevote.voting.selection import take_tokens

FLOOR = 1e-6  # votes that every patch has in a merged token: where nobody votes, it is the mean


class Present(NamedTuple):
    """Which patches are left in the trunk; behind them stands one token, merged of all others."""

    patches: Tensor  # (B, n) int64, patch numbers on the full grid, ascending
    weight: Tensor  # (B, 1), votes that the merged token stands for

    def numbers(self) -> Tensor:
        """Return the patch number of every token after the prefix, (B, n + 1); -1 for the merged one, the last."""
        return F.pad(self.patches, (0, 1), value=-1)


class TokenReduction(nn.Module):
    """How many patches are left after each trunk layer.

    Args:
        layers: indices of the trunk layers after which patches leave.
        rate: share of the patches present that each of them keeps in evaluation; 1 keeps all.
        training_rate: likewise in training.

    Raises:
        ArgumentError: a rate is not in (0, 1], or is below 1 without any layer.
    """

    def __init__(self, *, layers: Sequence[int], rate: float = 1.0, training_rate: float = 1.0) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.rate = self.check(rate)
        self.training_rate = self.check(training_rate)

    def check(self, rate: float) -> float:
        """Return a keep rate as it is; raise ArgumentError if it cannot be used here."""
        if not 0 < rate <= 1:
            raise ArgumentError(f"keep_rate={rate:g} must be above 0 and at most 1: the share of patches to keep")
        if rate < 1 and not self.layers:
            raise ArgumentError(
                f"keep_rate={rate:g} needs a trunk layer after which patches leave: use 1, or a deeper backbone"
            )
        return rate

    def num_kept(self, layer: int, num_present: int, *, num_needed: int) -> int:
        """Return how many of the patches present are left after a layer: ceil(rate x present), or what votes need."""
        rate = self.training_rate if self.training else self.rate
        if layer not in self.layers or rate == 1:
            return num_present
        return min(num_present, max(math.ceil(rate * num_present - 1e-9), num_needed))  # 0.1 x 30 is 3.0000000000000004


def keep_most_voted(
    tokens: Tensor, vote: LayerVote, present: Present | None, *, num_kept: int, num_prefix: int
) -> tuple[Tensor, Present]:
    """Return the tokens less the patches that rank lowest, these merged into one token, and what is left.

        m = sum(w_i x_i) / sum(w_i) over the patches that leave and the token merged before,

    with w_i = max(e_i, 0) + FLOOR for a patch of enhanced ballot e_i, and for the earlier token what went into it.

    Args:
        tokens: (B, N, D) the layer's output: the prefix, n patches, and the token merged before, if any.
        vote: of this layer, over these patches.
        present: what was left before; None for every patch.
        num_kept: k, at most n.
        num_prefix: CLS and register tokens.

    Returns:
        tokens (B, num_prefix + k + 1, D), patches in the order of their numbers, the merged token last.
    """
    kept = vote.ranking[:, :num_kept].sort(1).values  # (B, k)
    dtype = torch.promote_types(vote.scores.dtype, tokens.dtype)
    weights = vote.scores.to(dtype).clamp_min(0) + FLOOR  # (B, n)
    weights = weights.scatter(1, kept, 0.0)
    if present is not None:
        weights = torch.cat([weights, present.weight], dim=1)  # (B, n + 1)
    total = weights.sum(1, keepdim=True)  # (B, 1)
    merged = (weights / total)[:, None].to(tokens.dtype) @ tokens[:, num_prefix:]  # (B, 1, D)
    patches = kept if present is None else present.patches.gather(1, kept)
    left = take_tokens(tokens, num_prefix + kept)  # (B, k, D)
    return torch.cat([tokens[:, :num_prefix], left, merged], dim=1), Present(patches, total)
