"""What every layer of a model says of images, and how its heads voted: one look at a loader, kept as arrays."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from finevote.evaluation.predict import evaluation_mode
from finevote.model import FineGrainedClassifier
from finevote.types import Batch, Votes

REFINEMENT = "refinement"
Arrays = NDArray[np.float32]


class VoteArrays(NamedTuple):
    """How n images were voted on; arrays have one row an image.

    `key_shares` (n, S) is the share of key tokens that came from each layer; `head_shares` (n, S, H) the share of each
    head's votes that fell on patches of key tokens, which cover `key_areas` (n,) of all patches. `budget` is what each
    layer forwards, `has_second_vote` whether key tokens won a vote or are simply all that were selected.
    """

    budget: tuple[int, ...]
    key_shares: Arrays
    head_shares: Arrays
    key_areas: Arrays
    has_second_vote: bool


class LayerFeatures(NamedTuple):
    """Features (n, D) of n images after each layer named: its CLS token, and the mean of its patch tokens."""

    names: tuple[str, ...]
    cls: tuple[Arrays, ...]
    patches: tuple[Arrays, ...]
    votes: VoteArrays | None  # None for the plain backbone


def read_layers(
    model: FineGrainedClassifier,
    loader: Iterable[Batch],
    *,
    device: torch.device | str,
    advance: Callable[[int], None] | None = None,
) -> LayerFeatures:
    """Return features of all trunk layers, and of the refinement stage where there is one, with the votes.

    Tokens are those that a block puts out, not normalised. The trunk is read with every patch in it, so that all layers
    speak of the same patches; the votes are those of the forward pass, at the keep rate that the model has. The mean of
    the refinement stage is over the key tokens. `advance` is called with the number of images just done.
    """
    head: Any = model.head
    stage = head.refine if head.votes else None
    names = [f"layer {number}" for number in range(1, len(model.backbone.layers) + 1)]
    parts: list[list[tuple[Tensor, Tensor]]] = []
    votes: list[tuple[Tensor, ...]] = []
    with evaluation_mode(model), torch.inference_mode(), _inputs_of(stage and stage.norm) as refined:
        for batch in loader:
            images = batch.images.to(device, non_blocking=True)
            summary = _read_trunk(model, images)
            if head.votes:
                votes.append(_tally(model(images, with_head_votes=True).votes))
            summary += [(tokens[:, 0], tokens[:, 1:].mean(1)) for tokens in refined]
            refined.clear()
            parts.append([(cls.float().cpu(), mean.float().cpu()) for cls, mean in summary])
            if advance is not None:
                advance(len(images))
    cls, patches = ([_join(rows) for rows in zip(*of_kind, strict=True)] for of_kind in _by_kind(parts))
    return LayerFeatures(
        names=(*names, *([] if stage is None else [REFINEMENT])),
        cls=tuple(cls),
        patches=tuple(patches),
        votes=_gather_votes(votes, budget=tuple(model.budget or ()), has_second_vote=stage is not None),
    )


def _read_trunk(model: FineGrainedClassifier, images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return CLS (B, D) and the mean patch (B, D) after each layer."""
    backbone = model.backbone
    tokens = backbone.embed(images)  # (B, N, D)
    summary = []
    for layer in backbone.layers:
        tokens = layer(tokens, num_prefix=backbone.num_prefix, with_rows=False).tokens
        summary.append((tokens[:, 0], tokens[:, backbone.num_prefix :].mean(1)))
    return summary


@contextmanager
def _inputs_of(module: torch.nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect what goes into a module while the block runs; nothing where there is none."""
    seen: list[Tensor] = []
    if module is None:
        yield seen
        return
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _tally(votes: Votes) -> tuple[Tensor, ...]:
    """Return key shares (B, S), head shares (B, S, H) and key areas (B,) of a batch, with the votes of each head."""
    is_key = torch.zeros_like(votes.ballots[:, 0], dtype=torch.bool)  # (B, P)
    is_key = is_key.scatter(1, votes.selected.gather(1, votes.key_positions), value=True)
    ends = torch.tensor(votes.budget, device=is_key.device).cumsum(0)  # (S,)
    layers = torch.bucketize(votes.key_positions.contiguous(), ends, right=True)  # (B, K)
    key_shares = F.one_hot(layers, len(votes.budget)).float().mean(1)
    head_votes = cast("Tensor", votes.head_votes)  # (B, S, H, P)
    on_key = (head_votes & is_key[:, None, None]).sum(-1) / head_votes.sum(-1)  # (B, S, H)
    return key_shares.cpu(), on_key.float().cpu(), is_key.float().mean(1).cpu()


def _by_kind(parts: list[list[tuple[Tensor, Tensor]]]) -> Iterator[list[list[Tensor]]]:
    """Yield CLS, then mean patches: a list for each batch of a tensor for each layer."""
    for kind in range(2):
        yield [[pair[kind] for pair in summary] for summary in parts]


def _join(rows: tuple[Tensor, ...]) -> Arrays:
    return torch.cat(rows).numpy()


def _gather_votes(
    votes: list[tuple[Tensor, ...]], *, budget: tuple[int, ...], has_second_vote: bool
) -> VoteArrays | None:
    if not votes:
        return None
    key_shares, head_shares, key_areas = (_join(rows) for rows in zip(*votes, strict=True))
    return VoteArrays(budget, key_shares, head_shares, key_areas, has_second_vote)
