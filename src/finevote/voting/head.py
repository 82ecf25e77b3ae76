"""The two heads: multi-scale ensemble voting, and the plain linear classifier that everything is measured against."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.errors import ArgumentError
from finevote.noise import Noise, RowDropout
from finevote.types import Forwarded, LayerVote, ModelOutput, Votes
from finevote.voting.ballots import cast_votes, count_votes
from finevote.voting.keeping import Present, TokenReduction, keep_most_voted
from finevote.voting.merging import merge_unselected
from finevote.voting.refinement import RefinementStage, SecondVote, count_picks, vote_again
from finevote.voting.selection import TokenBudget, rank_patches, take_tokens
from finevote.voting.smoothing import BallotSmoothing, gate_tokens, straight_through_gates

_DROPOUT_STREAM = 900_001  # far above the two streams of each layer
_COMPLEMENT_STREAM = 900_002


class PlacedTokens(NamedTuple):
    """tokens (B, n, D); patches (B, n) int64, the number of the patch that each stands for, -1 for a merged token."""

    tokens: Tensor
    patches: Tensor


def gather_forwarded(forwarded: Sequence[Forwarded]) -> PlacedTokens:
    """Return the T selected tokens layer by layer, then the merged ones of all layers."""
    merged = [layer.merged for layer in forwarded if layer.merged is not None]
    tokens = torch.cat([*(layer.tokens for layer in forwarded), *merged], dim=1)  # (B, T (+ S), D)
    patches = torch.cat([layer.vote.selected for layer in forwarded], dim=1)  # (B, T)
    return PlacedTokens(tokens, F.pad(patches, (0, len(merged)), value=-1))


class Classified(NamedTuple):
    """What the two stages say: part logits (B, C), those of the refinement stage if there is one, the second vote."""

    logits: Tensor
    complement: Tensor | None
    second: SecondVote


class PlainHead(nn.Module):
    """Norm and linear classifier on CLS: the backbone with every mechanism off."""

    votes = reads_every_patch = False

    def __init__(self, norm: nn.Module, classifier: nn.Linear, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = norm
        self.classifier = classifier
        self.dropout = RowDropout(dropout, stream=_DROPOUT_STREAM)

    def forward(
        self, cls: Tensor, forwarded: Sequence[Forwarded], *, grid: tuple[int, int], noise: Noise | None
    ) -> ModelOutput:
        """Return the output for CLS tokens (B, 1, D) after the last block; nothing is forwarded."""
        del forwarded, grid
        embedding = self.norm(cls)[:, 0]  # (B, D)
        return ModelOutput(self.classifier(self.dropout(embedding, noise)), None, embedding, None)


class VotingHead(nn.Module):
    """Select tokens in every trunk layer, refine them across layers, vote again, and classify.

    `vote` and `forward_layer` are called once a layer while the trunk runs, `forward` once at its end. Each part may
    be left out: `smoothing`, `refine` or `key` None (not both of the last), `merge` or `assist` False, a budget that
    does not move.

    Args:
        classifier: one linear layer (D -> C) shared by complement and part logits.
        refine: the cross-layer refinement stage; None skips it and the second vote, all tokens reach the key stage.
        key: the key stage; None makes the complement logits the prediction.
        smoothing: of the ballots; None votes as cast.
        budget: tokens of each layer.
        num_votes_per_head: v.
        num_key_tokens: K.
        reduction: after which layers patches leave the trunk; None keeps all.
        merge: whether unselected patches are merged into one token a layer.
        assist: whether assist logits are added to the part logits.
        dropout: on the features that enter the classifier.
    """

    votes = True

    def __init__(
        self,
        classifier: nn.Linear,
        *,
        refine: RefinementStage | None,
        key: RefinementStage | None,
        smoothing: BallotSmoothing | None,
        budget: TokenBudget,
        num_votes_per_head: int,
        num_key_tokens: int,
        reduction: TokenReduction | None = None,
        merge: bool = False,
        assist: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if refine is None and key is None:
            raise ArgumentError("a voting head without refine and key never uses its votes: use PlainHead")
        self.classifier = classifier
        self.refine = refine
        self.key = key
        self.smoothing = smoothing
        self.budget = budget
        self.num_votes_per_head = num_votes_per_head
        self.num_key_tokens = num_key_tokens
        self.reduction = reduction or TokenReduction(layers=())
        self.merge = merge
        self.assist = assist
        self.dropout = RowDropout(dropout, stream=_DROPOUT_STREAM)
        self.complement_dropout = RowDropout(dropout, stream=_COMPLEMENT_STREAM)

    def vote(
        self,
        layer: int,
        rows: Tensor,
        *,
        grid: tuple[int, int],
        present: Present | None = None,
        with_heads: bool = False,
    ) -> LayerVote:
        """Let one layer's heads vote and select its best patches.

        Args:
            layer: index of the trunk layer.
            rows: (B, H, P) its CLS attention; to the patches present and the merged token, (B, H, n + 1), if some left.
            grid: rows, columns of patches.
            present: the patches that are left; None for all.
            with_heads: whether to keep the votes of each head.
        """
        patches = None if present is None else present.patches  # (B, n)
        if patches is not None:
            rows = rows[..., : patches.shape[1]]
        cast_by_heads = cast_votes(rows, num_votes=self.num_votes_per_head)  # (B, H, n)
        ballots = count_votes(cast_by_heads)  # (B, n)
        if patches is not None:
            ballots = ballots.new_zeros(ballots.shape[0], grid[0] * grid[1]).scatter(1, patches, ballots)  # (B, P)
        enhanced = ballots if self.smoothing is None else self.smoothing(ballots, grid)
        scores = enhanced if patches is None else enhanced.gather(1, patches)  # (B, n)
        ranking = rank_patches(scores, rows.mean(1))
        best = ranking[:, : self.budget.counts[layer]]  # (B, k)
        selected = best if patches is None else patches.gather(1, best)
        head_votes = _on_grid(cast_by_heads, patches, num_patches=ballots.shape[1]) if with_heads else None
        return LayerVote(ballots, enhanced, selected, scores, ranking, head_votes)

    @property
    def reads_every_patch(self) -> bool:
        """Whether patches that a layer does not forward are read all the same: to be merged, or to weigh gates."""
        return self.merge or (self.smoothing is not None and self.smoothing.learnable)

    def forward_layer(self, vote: LayerVote, patches: Tensor) -> Forwarded:
        """Return what a layer forwards of its output.

        Args:
            vote: of this layer.
            patches: (B, n, D) the block's output for the patches that it was given, and nothing else.
        """
        places = vote.ranking[:, : vote.selected.shape[1]]  # (B, k)
        tokens = take_tokens(patches, places)  # (B, k, D)
        if self.smoothing is not None and self.smoothing.learnable:
            gates = straight_through_gates(vote.enhanced, vote.selected)
            tokens = gate_tokens(tokens, gates, average=patches.mean(1, keepdim=True))
        merged = merge_unselected(patches, vote.scores, places) if self.merge else None
        return Forwarded(vote, tokens, merged)

    def reduce(
        self, layer: int, tokens: Tensor, vote: LayerVote, present: Present | None, *, num_prefix: int
    ) -> tuple[Tensor, Present | None]:
        """Return the tokens (B, N, D) that go on from a layer to the next, and which patches are left.

        No fewer patches are left than a head has votes, or than a later layer is to forward.
        """
        num_present = vote.ranking.shape[1]
        num_needed = max([self.num_votes_per_head, *self.budget.counts[layer + 1 :]])
        num_kept = self.reduction.num_kept(layer, num_present, num_needed=num_needed)
        if num_kept == num_present:
            return tokens, present
        return keep_most_voted(tokens, vote, present, num_kept=num_kept, num_prefix=num_prefix)

    def forward(
        self, cls: Tensor, forwarded: Sequence[Forwarded], *, grid: tuple[int, int], noise: Noise | None
    ) -> ModelOutput:
        """Turn CLS (B, 1, D) after the trunk and what its layers forwarded into logits."""
        told = self.classify(cls, gather_forwarded(forwarded), num_selected=self.budget.total, noise=noise)
        votes = self._record([layer.vote for layer in forwarded], told.second, grid=grid)
        complement = None if self.key is None else told.complement
        return ModelOutput(told.logits, complement, cls[:, 0], votes)

    def classify(
        self, cls: Tensor, gathered: PlacedTokens, *, num_selected: int, noise: Noise | None = None
    ) -> Classified:
        """Run both stages on CLS (B, 1, D) and tokens, of which the first `num_selected` can be voted for.

        They may be fewer than the budget's, and none at all.
        """
        complement, second, keys = self._refine(cls, gathered, num_selected=num_selected, noise=noise)
        if self.key is None:  # then there is a refinement stage, and its logits are the prediction
            return Classified(cast("Tensor", complement), complement, second)
        reading = self.key.read(cls, keys.tokens, patches=keys.patches, with_rows=False)
        refined = self.key.write(reading, wanted=None, noise=noise)  # (B, 1, D)
        return Classified(self._classify_parts(refined[:, 0], complement, noise=noise), complement, second)

    def _refine(
        self, cls: Tensor, gathered: PlacedTokens, *, num_selected: int, noise: Noise | None
    ) -> tuple[Tensor | None, SecondVote, PlacedTokens]:
        """Return complement logits (B, C), the second vote, and the tokens for the key stage."""
        if self.refine is None:
            positions = torch.arange(num_selected, device=cls.device).expand(cls.shape[0], -1)
            no_vote = SecondVote(cls.new_zeros(cls.shape[0], num_selected, dtype=torch.float32), positions)
            return None, no_vote, gathered
        reading = self.refine.read(cls, gathered.tokens, patches=gathered.patches, with_rows=True)
        second = vote_again(
            reading.rows[..., :num_selected], num_votes=self.num_votes_per_head, num_key_tokens=self.num_key_tokens
        )
        refined = self.refine.write(reading, wanted=second.positions, noise=noise)  # (B, 1 + K, D)
        complement = self.classifier(self.complement_dropout(refined[:, 0], noise))
        return complement, second, PlacedTokens(refined[:, 1:], gathered.patches.gather(1, second.positions))

    def _classify_parts(self, features: Tensor, complement: Tensor | None, *, noise: Noise | None) -> Tensor:
        """Return part logits, W x + b + assist, assist_c = softmax(complement)_c sum_d W[c, d] (docs/method.md, 7)."""
        logits: Tensor = self.classifier(self.dropout(features, noise))
        if self.assist and complement is not None:
            logits = logits + complement.softmax(-1) * self.classifier.weight.sum(1)
        return logits

    def _record(self, layer_votes: Sequence[LayerVote], second: SecondVote, *, grid: tuple[int, int]) -> Votes:
        budget = tuple(vote.selected.shape[1] for vote in layer_votes)
        by_heads = [vote.head_votes for vote in layer_votes if vote.head_votes is not None]
        return Votes(
            grid=grid,
            budget=budget,
            ballots=torch.stack([vote.ballots for vote in layer_votes], dim=1),
            enhanced=torch.stack([vote.enhanced.detach() for vote in layer_votes], dim=1),
            selected=torch.cat([vote.selected for vote in layer_votes], dim=1),
            key_ballots=second.ballots,
            key_positions=second.positions,
            layer_picks=count_picks(second.positions, budget=budget),
            head_votes=torch.stack(by_heads, dim=1) if by_heads else None,
        )


def _on_grid(head_votes: Tensor, patches: Tensor | None, *, num_patches: int) -> Tensor:
    """Return votes (B, H, n) for the patches present, numbered by `patches` (B, n), on the whole grid, (B, H, P)."""
    if patches is None:
        return head_votes
    on_grid = head_votes.new_zeros(*head_votes.shape[:2], num_patches)
    return on_grid.scatter(2, patches[:, None].expand_as(head_votes), head_votes)
