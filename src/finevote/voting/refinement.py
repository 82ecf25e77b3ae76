"""The selected tokens of all layers meet CLS in one more transformer block; its heads vote a second time."""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from finevote.noise import Noise
from finevote.voting.ballots import count_ballots
from finevote.voting.selection import rank_patches, take_tokens


class Layer(Protocol):
    """A transformer block as the backbones hand it over."""

    def __call__(
        self, tokens: Tensor, *, num_prefix: int, patches: Tensor | None, noise: Noise | None, with_rows: bool
    ) -> Any:
        """Return tokens (B, N, D) and the CLS rows (B, H, N - num_prefix) of the tokens after the prefix.

        `patches` (B, N - num_prefix) are the patch numbers of those tokens, -1 for one that stands for no patch.
        """


class SecondVote(NamedTuple):
    """ballots (B, T) float32 over the selected tokens; positions (B, K) of the key tokens among them."""

    ballots: Tensor
    positions: Tensor


class RefinementStage(nn.Module):
    """One block and its norm over [CLS; tokens]: cross-layer refinement, and likewise the key block.

    Args:
        layer: a transformer block that gives tokens and CLS rows.
        norm: the LayerNorm after it.
    """

    def __init__(self, layer: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.norm = norm

    def forward(
        self, cls: Tensor, tokens: Tensor, *, patches: Tensor, noise: Noise | None, with_rows: bool
    ) -> tuple[Tensor, Tensor]:
        """Return normalised tokens (B, 1 + n, D), CLS first, and the rows (B, H, n) (empty if not asked for).

        Args:
            cls: (B, 1, D).
            tokens: (B, n, D).
            patches: (B, n) the patch that each token stands for, so that a rotary block turns it as in the trunk; -1
                for none.
            noise: of this batch.
            with_rows: whether the heads vote on this stage.
        """
        sequence = torch.cat([cls, tokens], dim=1)
        output = self.layer(sequence, num_prefix=1, patches=patches, noise=noise, with_rows=with_rows)
        rows = output.rows if with_rows else tokens.new_empty(0)
        return self.norm(output.tokens), rows


def vote_again(rows: Tensor, *, num_votes: int, num_key_tokens: int) -> SecondVote:
    """Vote over the selected tokens, unsmoothed; ties go to the higher mean attention (docs/method.md, 6).

    Args:
        rows: (B, H, T) CLS attention of the refinement block, selected tokens only.
        num_votes: v.
        num_key_tokens: K.
    """
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


def gather_key_tokens(refined: Tensor, vote: SecondVote) -> Tensor:
    """Return the key tokens (B, K, D) of the normalised refinement output (B, 1 + T (+ merged), D)."""
    return take_tokens(refined[:, 1:], vote.positions)
