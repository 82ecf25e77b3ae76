"""The classifier: a backbone whose layers feed a head. No loss, no files, no settings."""

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.noise import Noise
from finevote.types import Forwarded, LayerVote, ModelOutput


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

    def forward(self, images: Tensor, noise: Noise | None = None) -> ModelOutput:
        """Classify normalised images (B, 3, rows, columns).

        Args:
            images: any device and float dtype.
            noise: which random masks to use in training; None draws fresh ones from torch's default generator.
        """
        if self.training and noise is None:
            noise = Noise.fresh(len(images))
        backbone, head = self.backbone, self.head
        num_prefix, last = backbone.num_prefix, len(backbone.layers) - 1
        tokens = backbone.embed(images)  # (B, N, D)
        forwarded = []
        for index, layer in enumerate(backbone.layers):
            is_spare = index == last and not head.reads_every_patch  # CLS and the selected alone leave the trunk
            reading = layer.read(tokens, num_prefix=num_prefix, with_rows=head.votes, every_query=not is_spare)
            vote = head.vote(index, reading.rows, grid=backbone.grid) if head.votes else None
            wanted = _leaving(tokens, vote, num_prefix=num_prefix) if is_spare else None
            tokens = layer.write(reading, wanted=wanted, noise=noise)  # (B, N, D), or (B, 1 + k, D)
            if vote is not None and is_spare:
                forwarded.append(Forwarded(vote, tokens[:, 1:]))
            elif vote is not None:
                forwarded.append(head.forward_layer(vote, tokens[:, num_prefix:]))
        output: ModelOutput = head(tokens[:, :1], forwarded, grid=backbone.grid, noise=noise)
        return output

    @property
    def num_blocks(self) -> int:
        """Backbone blocks that depths are counted over: the trunk."""
        return len(self.backbone.layers)

    @property
    def budget(self) -> tuple[int, ...] | None:
        """Tokens that each layer forwards now; None for the plain backbone."""
        return tuple(self.head.budget.counts) if self.head.votes else None

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
    """Return the positions (B, 1 + k) of CLS and of the selected patches; CLS alone without a vote."""
    if vote is None:
        return tokens.new_zeros(len(tokens), 1, dtype=torch.int64)
    return F.pad(num_prefix + vote.selected, (1, 0))
