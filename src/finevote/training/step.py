"""One optimiser step's gradients, the same however the batch is cut into micro-batches and ranks.

Batch-hard mining needs every embedding of the effective batch at once. Where they do not fit one forward pass, pass
one collects them without a graph; the triplet loss over all of them gives the gradient of each embedding; pass two
runs the chunks again under the same noise and back-propagates their cross-entropy plus dot(embedding, that gradient)
(GradCache, Gao et al. 2021, arXiv 2101.06983). The last chunk keeps its graph from pass one, so n chunks take 2n - 1
forward passes, and n without the triplet.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from finevote.losses.classification import JointLoss
from finevote.losses.triplet import embedding_spread
from finevote.noise import Noise
from finevote.types import Batch, ModelOutput

if TYPE_CHECKING:
    from lightning.fabric import Fabric


class StepResult(NamedTuple):
    """Figures of one step over all ranks.

    losses: means over the effective batch, "total", "part", "complement", "triplet" as they apply; embedding_spread
    near 0 means collapse; layer_picks (S,) for the budget, None without votes; num_correct of num_images.
    """

    losses: dict[str, Tensor]
    embedding_spread: Tensor | None
    layer_picks: Tensor | None
    num_correct: Tensor
    num_images: int


class _Chunk(NamedTuple):
    images: Tensor
    targets: Tensor
    labels: Tensor
    noise: Noise


def accumulate(
    fabric: "Fabric",
    model: nn.Module,
    batch: Batch,
    loss: JointLoss,
    *,
    triplet_weight: float,
    micro_batch: int | None,
    noise_seed: int,
) -> StepResult:
    """Add the gradients of this rank's share of the effective batch to the parameters.

    Args:
        fabric: does the backward pass, and the sums over ranks.
        model: as set up by Fabric, in training mode.
        batch: this rank's rows; every rank has as many.
        loss: the objective.
        triplet_weight: w of this step (it may be warming up); 0 leaves the triplet out.
        micro_batch: images held at once; None holds the whole share.
        noise_seed: of this step, equal on every rank.
    """
    num_rows = len(batch.labels) * fabric.world_size
    chunks = _cut(batch, micro_batch=micro_batch, rank=fabric.global_rank, num_rows=num_rows, seed=noise_seed)
    triplet: _TripletGradient | None = None
    kept: ModelOutput | None = None
    if triplet_weight:
        embeddings, kept = _first_pass(fabric, model, chunks)
        triplet = _triplet_gradient(fabric, embeddings, batch.labels, loss)
    sums: dict[str, Tensor] = {}
    for index, chunk in enumerate(reversed(chunks)):  # the last first: its graph waits
        with fabric.no_backward_sync(model, enabled=index < len(chunks) - 1):
            output = model(chunk.images, chunk.noise) if kept is None else kept
            kept = None
            terms = loss.classification(output, chunk.targets)
            objective = loss.combine(terms) * (fabric.world_size / num_rows)
            if triplet is not None:
                start = chunk.noise.start - chunks[0].noise.start
                cached = triplet.gradient[start : start + len(chunk.labels)]  # (b, D)
                objective = objective + triplet_weight * fabric.world_size * (output.embedding * cached).sum()
            fabric.backward(objective)
        _add(sums, terms, output, chunk.labels)
    return _summarise(fabric, sums, loss, triplet, triplet_weight=triplet_weight, num_rows=num_rows)


class _TripletGradient(NamedTuple):
    value: Tensor  # scalar
    spread: Tensor  # scalar
    gradient: Tensor  # (n, D) of this rank's embeddings


def _cut(batch: Batch, *, micro_batch: int | None, rank: int, num_rows: int, seed: int) -> list[_Chunk]:
    size = micro_batch or len(batch.labels)
    offset = rank * len(batch.labels)
    targets = batch.labels if batch.targets is None else batch.targets
    return [
        _Chunk(
            batch.images[start : start + size],
            targets[start : start + size],
            batch.labels[start : start + size],
            Noise(seed, offset + start, num_rows),
        )
        for start in range(0, len(batch.labels), size)
    ]


def _first_pass(fabric: "Fabric", model: nn.Module, chunks: Sequence[_Chunk]) -> tuple[Tensor, ModelOutput]:
    """Return the embeddings (n, D) of this rank's rows under the noise of pass two, and the last chunk's output."""
    *others, last = chunks
    with torch.no_grad():
        embeddings = [model(chunk.images, chunk.noise).embedding for chunk in others]
    with fabric.no_backward_sync(model, enabled=bool(others)):
        output: ModelOutput = model(last.images, last.noise)
    return torch.cat([*embeddings, output.embedding.detach()]), output


def _triplet_gradient(fabric: "Fabric", embeddings: Tensor, labels: Tensor, loss: JointLoss) -> _TripletGradient:
    """Mine over the embeddings of all ranks; return the gradient of this rank's rows."""
    num_local = len(embeddings)
    all_embeddings = fabric.all_gather(embeddings.float()).reshape(-1, embeddings.shape[1]).requires_grad_()
    all_labels = fabric.all_gather(labels).reshape(-1)
    value = loss.triplet(all_embeddings, all_labels)
    (gradient,) = torch.autograd.grad(value, all_embeddings)
    start = fabric.global_rank * num_local
    spread = embedding_spread(all_embeddings.detach())
    return _TripletGradient(value.detach(), spread, gradient[start : start + num_local])


def _add(sums: dict[str, Tensor], terms: dict[str, Tensor], output: ModelOutput, labels: Tensor) -> None:
    figures = {name: term.detach() for name, term in terms.items()}
    figures["num_correct"] = (output.logits.detach().argmax(1) == labels).sum()
    if output.votes is not None:
        figures["layer_picks"] = output.votes.layer_picks
    for name, figure in figures.items():
        sums[name] = sums[name] + figure if name in sums else figure


def _summarise(
    fabric: "Fabric",
    sums: dict[str, Tensor],
    loss: JointLoss,
    triplet: _TripletGradient | None,
    *,
    triplet_weight: float,
    num_rows: int,
) -> StepResult:
    whole: dict[str, Tensor] = {name: fabric.all_reduce(figure, reduce_op="sum") for name, figure in sums.items()}
    num_correct, layer_picks = whole.pop("num_correct"), whole.pop("layer_picks", None)
    losses = {name: total / num_rows for name, total in whole.items()}
    losses["total"] = loss.combine(losses)
    if triplet is not None:
        losses["triplet"] = triplet.value
        losses["total"] = losses["total"] + triplet_weight * triplet.value
    return StepResult(losses, triplet.spread if triplet else None, layer_picks, num_correct, num_rows)
