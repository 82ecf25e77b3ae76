"""The joint classification loss and the settings of the whole objective."""

from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from finevote.losses.triplet import batch_hard_triplet
from finevote.types import ModelOutput


class JointLoss(NamedTuple):
    """(1 - a) CE(part) + a CE(complement) + w x triplet(embedding) (docs/method.md, 8).

    Attributes:
        complement_weight: a in [0, 1]; without complement logits the loss is CE(part).
        label_smoothing: share of the target spread evenly over the classes.
        triplet_weight: w >= 0.
        triplet_margin: a distance, or "soft".
        triplet_normalize: compare unit-length embeddings.
    """

    complement_weight: float = 0.4
    label_smoothing: float = 0.0
    triplet_weight: float = 0.1
    triplet_margin: float | Literal["soft"] = 1.0
    triplet_normalize: bool = False

    def classification(self, output: ModelOutput, targets: Tensor) -> dict[str, Tensor]:
        """Return the terms "part" and, where there is one, "complement", each summed over the images.

        Args:
            output: of B images.
            targets: (B,) int64 labels, or (B, C) soft labels.
        """
        terms = {"part": self._cross_entropy(output.logits, targets)}
        if output.complement is not None:
            terms["complement"] = self._cross_entropy(output.complement, targets)
        return terms

    def combine(self, terms: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the classification terms."""
        if "complement" not in terms:
            return terms["part"]
        return (1 - self.complement_weight) * terms["part"] + self.complement_weight * terms["complement"]

    def triplet(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the unweighted triplet loss of the whole batch, embeddings (n, D) and labels (n,)."""
        return batch_hard_triplet(embeddings, labels, margin=self.triplet_margin, normalize=self.triplet_normalize)

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing, reduction="sum")
