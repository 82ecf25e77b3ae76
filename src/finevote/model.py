"""The classifier: a backbone whose layers feed a head. No loss, no files, no settings."""

import re
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.errors import ArgumentError
from finevote.noise import Noise
from finevote.types import Forwarded, LayerVote, ModelOutput


class TrunkOutput(NamedTuple):
    """What the trunk hands to the head: cls (B, 1, D) after its last block, and what layers that vote forward."""

    cls: Tensor
    forwarded: tuple[Forwarded, ...]


class FineGrainedClassifier(nn.Module):
    """A photograph's logits, embedding and votes.

    Args:
        backbone: gives `embed`, `layers`, `num_prefix` and `grid`; its layers are the trunk.
        head: a `VotingHead`, or a `PlainHead` for the plain backbone.
    """

    def __init__(self, backbone: Any, head: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor, noise: Noise | None = None, *, with_head_votes: bool = False) -> ModelOutput:
        """Classify normalised images (B, 3, rows, columns).

        Args:
            images: any device and float dtype.
            noise: which random masks to use in training; None draws fresh ones from torch's default generator.
            with_head_votes: whether the votes of each head are kept too; nothing else of the output changes.
        """
        if self.training and noise is None:
            noise = Noise.fresh(len(images))
        trunk = self.run_trunk(images, noise, with_head_votes=with_head_votes)
        output: ModelOutput = self.head(trunk.cls, trunk.forwarded, grid=self.backbone.grid, noise=noise)
        return output

    def run_trunk(self, images: Tensor, noise: Noise | None = None, *, with_head_votes: bool = False) -> TrunkOutput:
        """Return what the head gets of images: CLS, and what the layers forward; arguments as of `forward`."""
        backbone, head = self.backbone, self.head
        num_prefix, last = backbone.num_prefix, len(backbone.layers) - 1
        tokens = backbone.embed(images)  # (B, N, D)
        forwarded, present = [], None  # every patch
        for index, layer in enumerate(backbone.layers):
            is_spare = index == last and not head.reads_every_patch  # CLS and the selected alone leave the trunk
            reading = layer.read(
                tokens,
                num_prefix=num_prefix,
                patches=None if present is None else present.numbers(),
                with_rows=head.votes,
                every_query=not is_spare,
            )
            vote = None
            if head.votes:
                vote = head.vote(index, reading.rows, grid=backbone.grid, present=present, with_heads=with_head_votes)
            wanted = _leaving(tokens, vote, num_prefix=num_prefix) if is_spare else None
            tokens = layer.write(reading, wanted=wanted, noise=noise)  # (B, N, D), or (B, 1 + k, D)
            if vote is not None and is_spare:
                forwarded.append(Forwarded(vote, tokens[:, 1:]))
            elif vote is not None:
                patches = tokens[:, num_prefix : num_prefix + vote.ranking.shape[1]]  # (B, n, D)
                forwarded.append(head.forward_layer(vote, patches))
                tokens, present = head.reduce(index, tokens, vote, present, num_prefix=num_prefix)
        return TrunkOutput(tokens[:, :1], tuple(forwarded))

    @property
    def num_blocks(self) -> int:
        """Backbone blocks that depths are counted over: the trunk."""
        return len(self.backbone.layers)

    @property
    def budget(self) -> tuple[int, ...] | None:
        """Tokens that each layer forwards now; None for the plain backbone."""
        return tuple(self.head.budget.counts) if self.head.votes else None

    @property
    def keep_rate(self) -> float:
        """Share of the patches that each reducing layer keeps in evaluation; 1 is exact."""
        return float(self.head.reduction.rate) if self.head.votes else 1.0

    def set_keep_rate(self, rate: float) -> None:
        """Set the share of the patches that each reducing layer keeps in evaluation.

        Raises:
            ArgumentError: it is not in (0, 1], or is below 1 where nobody votes or no layer reduces.
        """
        if self.head.votes:
            self.head.reduction.rate = self.head.reduction.check(rate)
        elif rate != 1:
            raise ArgumentError(f"keep_rate={rate:g} needs votes, and the plain backbone has none: leave it at 1")

    def update_budget(self, layer_picks: Tensor) -> None:
        """Move the budget by the key tokens (S,) that came from each layer in one training step."""
        if self.head.votes and self.head.refine is not None:
            self.head.budget.update(layer_picks)

    def depth_of(self, parameter_name: str) -> int | None:
        """Return 0 for the embedding, i + 1 for backbone block i, None for new parts."""
        if block := re.match(r"backbone\.layers\.(\d+)\.", parameter_name):
            return int(block.group(1)) + 1
        return 0 if parameter_name.startswith("backbone.") else None

    def freeze_backbone(self, frozen: bool) -> None:  # noqa: FBT001
        """Exclude the backbone from training, or include it again."""
        self.backbone.requires_grad_(not frozen)


def _leaving(tokens: Tensor, vote: LayerVote | None, *, num_prefix: int) -> Tensor:
    """Return the positions (B, 1 + k) of CLS and of the selected patches in a layer; CLS alone without a vote."""
    if vote is None:
        return tokens.new_zeros(tokens.shape[0], 1, dtype=torch.int64)
    return F.pad(num_prefix + vote.ranking[:, : vote.selected.shape[1]], (1, 0))
