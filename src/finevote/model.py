"""The classifier: a backbone whose layers feed a head. No loss, no files, no settings."""

import re
from typing import Any

from torch import Tensor, nn

from finevote.noise import Noise
from finevote.types import ModelOutput


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
        tokens = backbone.embed(images)  # (B, N, D)
        layer_votes = []
        for index, layer in enumerate(backbone.layers):
            tokens, rows = layer(tokens, num_prefix=backbone.num_prefix, noise=noise, with_rows=head.votes)
            if head.votes:
                layer_votes.append(head.vote(index, tokens[:, backbone.num_prefix :], rows, grid=backbone.grid))
        output: ModelOutput = head(tokens[:, :1], layer_votes, grid=backbone.grid, noise=noise)
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
