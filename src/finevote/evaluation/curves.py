"""Deletion and insertion: what a model still says while patches are taken away or brought in, in a given order."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from finevote.errors import ArgumentError

Score = Callable[[Tensor], Tensor]
_REACH = 3.0  # standard deviations after which the blur's kernel is cut


class Curves(NamedTuple):
    """Probability of the class that the model names for the whole view, after each step; (B, O, S + 1) float32."""

    deletion: Tensor
    insertion: Tensor


def patch_counts(num_patches: int, *, num_steps: int) -> list[int]:
    """Return how many patches are changed after each step, from 0 to all: whole numbers, as even as they can be.

    There are no more steps than patches.

    Raises:
        ArgumentError: there are no steps.
    """
    if num_steps < 1:
        raise ArgumentError(f"num_steps={num_steps} must be 1 or more")
    steps = min(num_steps, num_patches)
    return [(2 * step * num_patches + steps) // (2 * steps) for step in range(steps + 1)]


def delete_and_insert(
    images: Tensor,
    orders: Sequence[Tensor],
    *,
    grid: tuple[int, int],
    score: Score,
    num_steps: int,
    advance: Callable[[int], None] | None = None,
) -> Curves:
    """Return the deletion and insertion curves of every order (RISE: Petsiuk, Das and Saenko 2018).

    Deletion starts from the whole view, and patches become the mean colour, 0. Insertion starts from a blurred view,
    and patches become what they are. The class is the one that the model names for the whole view. No more than B
    images are scored at once, and the views that all orders share (whole, blank, blurred) once.

    Args:
        images: (B, 3, rows, columns), normalised; sides are whole numbers of patches.
        orders: (B, P) patch numbers each, those to change first come first.
        grid: rows, columns of patches.
        score: from images to probabilities (B, C).
        num_steps: S.
        advance: called with the number of forward passes of an image just done.

    Raises:
        ArgumentError: the images do not lie on the grid, or an order does not fit it.
    """
    _check(images, orders, grid)
    counts = patch_counts(grid[0] * grid[1], num_steps=num_steps)

    def ask(views: Tensor) -> Tensor:
        probabilities = score(views).float()  # (B, C)
        if advance is not None:
            advance(len(views))
        return probabilities

    whole = ask(images)
    named = whole.argmax(1, keepdim=True)  # (B, 1)
    blurred = blur(images, grid=grid)
    blank = ask(torch.zeros_like(images[:1])).expand_as(whole)
    ends = [end.gather(1, named)[:, 0] for end in (whole, blank, ask(blurred))]  # (B,) each
    deletion, insertion = [], []
    for order in orders:
        ranks = _ranks_of_pixels(order, grid=grid, image_size=images.shape[-2:])  # (B, 1, rows, columns)
        removed, brought = [], []
        for count in counts[1:-1]:
            is_changed = ranks < count
            removed.append(ask(images.masked_fill(is_changed, 0.0)).gather(1, named)[:, 0])
            brought.append(ask(torch.where(is_changed, images, blurred)).gather(1, named)[:, 0])
        deletion.append(torch.stack([ends[0], *removed, ends[1]], dim=1))  # (B, S + 1)
        insertion.append(torch.stack([ends[2], *brought, ends[0]], dim=1))
    return Curves(torch.stack(deletion, dim=1), torch.stack(insertion, dim=1))


def num_passes(num_orders: int, num_patches: int, *, num_steps: int) -> int:
    """Return how many forward passes `delete_and_insert` makes for each image, but for one more a batch."""
    return 2 + 2 * num_orders * (len(patch_counts(num_patches, num_steps=num_steps)) - 2)


def blur(images: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Return images blurred by a Gaussian whose standard deviation is the side of a patch, borders repeated.

    What is told within a patch is gone; where things roughly are, and their colours, stay.
    """
    for axis, num_patches in zip((-2, -1), grid, strict=True):
        images = _blur_along(images, axis=axis, sigma_px=images.shape[axis] / num_patches)
    return images


def _blur_along(images: Tensor, *, axis: int, sigma_px: float) -> Tensor:
    reach = math.ceil(_REACH * sigma_px)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = (kernel / kernel.sum()).to(images.dtype)
    lines = images.movedim(axis, -1)  # (B, 3, others, size)
    shape = lines.shape
    lines = F.pad(lines.reshape(-1, 1, shape[-1]), (reach, reach), mode="replicate")
    return F.conv1d(lines, kernel[None, None]).reshape(shape).movedim(-1, axis)


def _ranks_of_pixels(order: Tensor, *, grid: tuple[int, int], image_size: Sequence[int]) -> Tensor:
    """Return for every pixel at which place its patch comes in the order, (B, 1, rows, columns)."""
    ranks = order.argsort(1).reshape(-1, 1, *grid)  # (B, 1, grid rows, grid columns)
    for axis, (size_px, num_patches) in enumerate(zip(image_size, grid, strict=True), start=2):
        ranks = ranks.repeat_interleave(size_px // num_patches, dim=axis)
    return ranks


def _check(images: Tensor, orders: Sequence[Tensor], grid: tuple[int, int]) -> None:
    if any(size_px % num_patches for size_px, num_patches in zip(images.shape[-2:], grid, strict=True)):
        raise ArgumentError(
            f"images of {images.shape[-2]}x{images.shape[-1]} px are no whole patches on a grid of {grid[0]}x{grid[1]}"
        )
    numbers = torch.arange(grid[0] * grid[1], device=images.device).expand(len(images), -1)
    for order in orders:
        if order.shape != numbers.shape or not torch.equal(order.sort(1).values, numbers):
            raise ArgumentError(
                f"an order of shape {tuple(order.shape)} must hold each of {numbers.shape[1]} patches once for each of "
                f"{len(images)} images"
            )
