"""The selected tokens of all layers meet CLS in one more transformer block; its heads vote a second time."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.noise import Noise
from finevote.voting.ballots import count_ballots
from finevote.voting.selection import rank_patches


class Layer(Protocol):
    """A transformer block as the backbones hand it over."""

    def read(
        self, tokens: Tensor, *, num_prefix: int, patches: Tensor | None, with_rows: bool, every_query: bool
    ) -> Any:
        """Return what the block's attention reads of tokens (B, N, D); `rows` of it are the CLS rows.

        `patches` (B, N - num_prefix) are the patch numbers of the tokens after the prefix, -1 for one that stands for
        no patch.
        """

    def write(self, reading: Any, *, wanted: Tensor | None, noise: Noise | None) -> Tensor:
        """Return the block's output for the tokens at the wanted positions."""


class SecondVote(NamedTuple):
    """ballots (B, T) float32 over the selected tokens; positions (B, K) of the key tokens among them."""

    ballots: Tensor
    positions: Tensor


class RefinementStage(nn.Module):
    """One block and its norm over [CLS; tokens]: cross-layer refinement, and likewise the key block.

    The block is read first; of its output only CLS and the tokens that are wanted by then are computed.

    Args:
        layer: a transformer block that is read and written.
        norm: the LayerNorm after it.
    """

    def __init__(self, layer: Any, norm: nn.Module) -> None:
        super().__init__()
        self.layer: Any = layer  # a `Layer`
        self.norm = norm

    def read(self, cls: Tensor, tokens: Tensor, *, patches: Tensor, with_rows: bool) -> Any:
        """Return the block's reading of [CLS; tokens]; its `rows` (B, H, n) are the heads' attention to the tokens.

        Args:
            cls: (B, 1, D).
            tokens: (B, n, D).
            patches: (B, n) the patch that each token stands for, so that a rotary block turns it as in the trunk; -1
                for none.
            with_rows: whether the heads vote on this stage.
        """
        sequence = torch.cat([cls, tokens], dim=1)
        return self.layer.read(sequence, num_prefix=1, patches=patches, with_rows=with_rows, every_query=False)

    def write(self, reading: Any, *, wanted: Tensor | None, noise: Noise | None) -> Tensor:
        """Return CLS refined and normalised, (B, 1, D), or (B, 1 + m, D) with the tokens `wanted` (B, m) behind it."""
        if wanted is None:
            wanted = reading.tokens.new_empty(reading.tokens.shape[0], 0, dtype=torch.int64)
        positions = F.pad(1 + wanted, (1, 0))  # (B, 1 + m)
        return self.norm(self.layer.write(reading, wanted=positions, noise=noise))  # type: ignore[no-any-return]


def vote_again(rows: Tensor, *, num_votes: int, num_key_tokens: int) -> SecondVote:
    """Vote over the selected tokens, unsmoothed; ties go to the higher mean attention (docs/method.md, 6).

    Args:
        rows: (B, H, T) CLS attention of the refinement block, selected tokens only.
        num_votes: v.
        num_key_tokens: K; all T tokens where there are fewer, which may be none.
    """
    if not rows.shape[-1]:
        return SecondVote(rows.sum(1), rows.sum(1).long())
    ballots = count_ballots(rows, num_votes=min(num_votes, rows.shape[-1]))
    order = rank_patches(ballots, rows.mean(1))
    return SecondVote(ballots, order[:, :num_key_tokens])


def count_picks(positions: Tensor, *, budget: tuple[int, ...]) -> Tensor:
    """Return how many key tokens came from each layer, (S,) int64 over the batch.

    Args:
        positions: (B, K) among the T selected tokens, which lie layer by layer.
        budget: tokens of each layer, sum T.
    """
    layer_ends = torch.tensor(budget, device=positions.device).cumsum(0)  # (S,)
    layers = torch.bucketize(positions.contiguous(), layer_ends, right=True).flatten()  # (B x K,)
    # Not bincount, which waits for the device to learn how long its result is.
    return layers.new_zeros(len(budget)).scatter_add(0, layers, torch.ones_like(layers))
