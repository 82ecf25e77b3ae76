"""From the votes of a forward pass to maps in image coordinates, through resize and centre crop."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.explanation.explained import Map, VoteMaps
from finevote.types import Box, Preprocessing, Votes

if TYPE_CHECKING:  # so that those who only place maps in photographs do without torch
    from torch import Tensor


class HeadShare(NamedTuple):
    """A head, from 0, and the share of the final votes that lie on patches it voted for."""

    head: int
    share: float


def vote_maps(votes: Votes) -> list[VoteMaps]:
    """Return the votes of each image of a batch, laid on the grid.

    Raises:
        ArgumentError: the model was not asked for the votes of each head.
    """
    if votes.head_votes is None:
        raise ArgumentError("the votes of each head are not there: call the model with with_head_votes=True")
    rows, columns = votes.grid
    num_images, num_layers, num_heads, num_patches = votes.head_votes.shape
    final = votes.per_patch()  # (B, P)
    selections = final.new_zeros(num_images, num_patches)
    selections = selections.scatter_add(1, votes.selected, final.new_ones(votes.selected.shape))
    has_second_vote = bool((votes.key_ballots > 0).any())
    shown = final if has_second_vote else selections
    return [
        VoteMaps(
            grid=votes.grid,
            budget=votes.budget,
            ballots=_array(votes.ballots[image]).reshape(num_layers, rows, columns),
            enhanced=_array(votes.enhanced[image]).reshape(num_layers, rows, columns),
            head_votes=_array(votes.head_votes[image]).reshape(num_layers, num_heads, rows, columns),
            selected=_array(votes.selected[image]),
            key_ballots=_array(votes.key_ballots[image]),
            key_positions=_array(votes.key_positions[image]),
            final=_array(shown[image]).reshape(rows, columns),
            has_second_vote=has_second_vote,
        )
        for image in range(num_images)
    ]


def view_in_photograph(preprocessing: Preprocessing) -> Box:
    """Return the part of a photograph that the model sees: what the centre crop leaves of the squashed image."""
    sides = []
    for whole, part in zip(preprocessing.resize, preprocessing.image_size, strict=True):
        start = round((whole - part) / 2)  # as torchvision's CenterCrop rounds
        sides.append((start / whole, (start + part) / whole))
    (top, bottom), (left, right) = sides
    return Box("view", left, top, right, bottom)


def on_photograph(values: Map, *, view: Box, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the value of the patch that each pixel of a photograph of `size` (rows, columns) lies in; NaN outside."""
    numbers = []
    for num_pixels, num_patches, start, end in zip(
        size, values.shape, (view.top, view.left), (view.bottom, view.right), strict=True
    ):
        centres = (np.arange(num_pixels) + 0.5) / num_pixels
        numbers.append(np.floor((centres - start) / (end - start) * num_patches).astype(int))
    row, column = numbers
    inside = ((row >= 0) & (row < values.shape[0]))[:, None] & ((column >= 0) & (column < values.shape[1]))[None]
    clipped = values[row.clip(0, values.shape[0] - 1)][:, column.clip(0, values.shape[1] - 1)]
    return np.where(inside, clipped.astype(np.float64), np.nan)


def area_of_votes(votes: Map, *, share: float = 0.5) -> float:
    """Return how much of the view the fewest patches take that hold at least `share` of the votes; NaN without any."""
    if not votes.sum() > 0:
        return float("nan")
    held = np.cumsum(np.sort(votes.ravel().astype(np.float64))[::-1]) / votes.sum(dtype=np.float64)
    return float((np.searchsorted(held, share - 1e-9) + 1) / votes.size)


def strongest_heads(maps: VoteMaps, layer: int) -> list[HeadShare]:
    """Return the heads of a layer, from 0, by the share of the final votes on the patches that they voted for."""
    total = maps.final.sum(dtype=np.float64)
    shares = (maps.head_votes[layer] * maps.final).sum(axis=(1, 2), dtype=np.float64) / max(total, 1e-12)  # (H,)
    return [HeadShare(int(head), float(shares[head])) for head in np.argsort(-shares, kind="stable")]


def _array(tensor: Tensor) -> NDArray:  # type: ignore[type-arg]  # of the tensor's own dtype
    return tensor.cpu().numpy()
