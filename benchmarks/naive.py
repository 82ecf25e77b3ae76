"""The method as one would write it first: an oracle for results, and an opponent for speed.

One image at a time, every block whole, attention as full N x N matrices, votes and selection by sorting. It shares the
weights of a built classifier and nothing of its code beyond the embedding, the norms, scales and MLPs.

    finevote bench step memory --contender benchmarks.naive:NAIVE
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.bench.contenders import OURS, Built, Contender
from finevote.errors import UnsupportedModelError
from finevote.voting.head import VotingHead

if TYPE_CHECKING:
    from finevote.bench.plan import Case
    from finevote.model import FineGrainedClassifier


class NaiveOutput(NamedTuple):
    """What one image, or with a first dimension B a batch, comes to.

    Shapes without it: logits (C,), complement (C,) or None, embedding (D,), ballots (S, P), selected (T,) patch
    numbers layer by layer, key_positions (K,) among them.
    """

    logits: Tensor
    complement: Tensor | None
    embedding: Tensor
    ballots: Tensor
    selected: Tensor
    key_positions: Tensor


class NaiveClassifier(nn.Module):
    """The same classifier without any of the savings.

    Args:
        model: a voting classifier, whose weights are shared.

    Raises:
        UnsupportedModelError: the model has what is not done here; the message names it.
    """

    def __init__(self, model: FineGrainedClassifier) -> None:
        super().__init__()
        check(model)
        self.model = model

    def forward(self, images: Tensor) -> NaiveOutput:
        """Classify images (B, 3, rows, columns), one after the other."""
        outputs = [self.classify(image) for image in images]
        return NaiveOutput(
            *(None if values[0] is None else torch.stack(values) for values in zip(*outputs, strict=True))
        )

    def classify(self, image: Tensor) -> NaiveOutput:
        """Return the output for one image (3, rows, columns)."""
        backbone, head = self.model.backbone, self.model.head
        num_prefix = backbone.num_prefix
        tokens = backbone.embed(image[None])[0]  # (N, D)
        ballots, selected, forwarded, merged = [], [], [], []
        for layer, count in zip(backbone.layers, head.budget.counts, strict=True):
            tokens, attention = run_block(layer, tokens)  # (N, D), (H, N, N)
            rows = attention[:, 0, num_prefix:]  # (H, P)
            patches = tokens[num_prefix:]
            ballot = count_votes(rows, head.num_votes_per_head)
            scores = ballot if head.smoothing is None else smooth(ballot, head.smoothing, backbone.grid)
            best = rank(scores, rows.mean(0))[:count]
            ballots.append(ballot)
            selected.append(best)
            forwarded.append(patches[best])
            if head.merge:
                merged.append(merge(patches, scores, best))
        cls = tokens[:1]  # (1, D)
        complement, positions, keys = self.refine(cls, torch.cat(forwarded), merged)
        logits = complement if head.key is None else self.classify_keys(cls, keys, complement)
        return NaiveOutput(
            logits=logits,
            complement=None if head.key is None else complement,
            embedding=cls[0],
            ballots=torch.stack(ballots),
            selected=torch.cat(selected),
            key_positions=positions,
        )

    def refine(self, cls: Tensor, tokens: Tensor, merged: list[Tensor]) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return complement logits (C,), the positions of the key tokens, and those tokens (K, D)."""
        head, num_selected = self.model.head, len(tokens)
        if head.refine is None:
            return None, torch.arange(num_selected, device=tokens.device), torch.cat([tokens, *merged])
        refined, attention = run_block(head.refine.layer, torch.cat([cls, tokens, *merged]))
        refined = head.refine.norm(refined)
        rows = attention[:, 0, 1 : 1 + num_selected]  # (H, T)
        ballot = count_votes(rows, min(head.num_votes_per_head, num_selected))
        positions = rank(ballot, rows.mean(0))[: head.num_key_tokens]
        return head.classifier(refined[0]), positions, refined[1:][positions]

    def classify_keys(self, cls: Tensor, keys: Tensor, complement: Tensor | None) -> Tensor:
        """Return part logits (C,) from the key tokens (K, D), with the assist logits where they are on."""
        head = self.model.head
        refined, _ = run_block(head.key.layer, torch.cat([cls, keys]))
        logits: Tensor = head.classifier(head.key.norm(refined)[0])
        if head.assist and complement is not None:
            logits = logits + complement.softmax(-1) * head.classifier.weight.sum(1)
        return logits


def run_block(layer: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return a pre-norm block's output (N, D) and its attention matrices (H, N, N)."""
    attn, normed = layer.attn, layer.norm1(tokens)
    num_tokens, width = tokens.shape
    parts = attn.qkv(normed).reshape(num_tokens, 3, attn.num_heads, -1)  # (N, 3, H, d)
    queries, keys, values = (parts[:, number].transpose(0, 1) for number in range(3))  # (H, N, d)
    queries, keys = attn.q_norm(queries), attn.k_norm(keys)
    attention = (queries @ keys.mT / math.sqrt(queries.shape[-1])).softmax(-1)  # (H, N, N)
    mixed = (attention @ values).transpose(0, 1).reshape(num_tokens, width)
    tokens = tokens + layer.ls1(attn.proj(mixed))
    return tokens + layer.ls2(layer.mlp(layer.norm2(tokens))), attention


def count_votes(rows: Tensor, num_votes: int) -> Tensor:
    """Return how many heads have each patch among their strongest, (P,) float32, from rows (H, P)."""
    counts = [0.0] * rows.shape[1]
    for head in rows.tolist():
        for patch in sorted(range(len(head)), key=lambda patch: (-head[patch], patch))[:num_votes]:
            counts[patch] += 1
    return torch.tensor(counts, device=rows.device)


def smooth(ballot: Tensor, smoothing: Any, grid: tuple[int, int]) -> Tensor:
    """Return the largest, place by place, of the ballot (P,) smoothed at each dilation."""
    image, kernels = ballot.reshape(1, 1, *grid), smoothing.kernels.detach().float()  # (scales, 3, 3)
    with torch.autocast(ballot.device.type, enabled=False):  # counts are exact in float32
        scales = [
            F.conv2d(image, kernel[None, None], padding=dilation, dilation=dilation).flatten()
            for kernel, dilation in zip(kernels, smoothing.dilations, strict=True)
        ]
    return torch.stack(scales).amax(0)


def rank(scores: Tensor, mass: Tensor) -> Tensor:
    """Return patch numbers (P,), best first: by score, then by mean attention, then by number."""
    pairs = list(zip(scores.tolist(), mass.tolist(), strict=True))
    order = sorted(range(len(pairs)), key=lambda patch: (-pairs[patch][0], -pairs[patch][1], patch))
    return torch.tensor(order, device=scores.device)


def merge(patches: Tensor, scores: Tensor, selected: Tensor) -> Tensor:
    """Return the mean (1, D) of the patches that were not selected, weighted by their scores (a negative one is 0)."""
    weights = scores.clamp_min(0).to(patches.dtype)
    weights[selected] = 0
    return (weights / (weights.sum() + 1e-6)) @ patches[None]


def check(model: FineGrainedClassifier) -> None:
    """Raise UnsupportedModelError, naming it, where the model has what is not done here."""
    if not isinstance(model.head, VotingHead):
        raise UnsupportedModelError("the naive classifier votes: it needs a voting head")
    stages = [stage.layer for stage in (model.head.refine, model.head.key) if stage is not None]
    for layer in [*model.backbone.layers, *stages]:
        for problem, found in {
            "a summary token in place of CLS": not layer.cls_is_key,
            "rotary positions": layer.rotation is not None,
            f"{type(layer.attn).__name__} instead of plain attention": type(layer.attn).__name__ != "Attention",
            "a gate on attention": getattr(layer.attn, "gate", None) is not None,
            "drop-path": layer.drop_path1.rate > 0,
        }.items():
            if found:
                raise UnsupportedModelError(f"the naive classifier does not do {problem}")
    if model.keep_rate < 1:
        raise UnsupportedModelError("the naive classifier does not do a keep_rate below 1")
    if model.head.dropout.rate > 0:
        raise UnsupportedModelError("the naive classifier does not do dropout")


def _build(case: Case) -> Built:
    built = OURS.build(case)
    return Built(NaiveClassifier(built.model), built.objective)  # type: ignore[arg-type]


NAIVE = Contender("naive", _build)
