"""Does a model use the patches that its votes name? Deletion and insertion curves of images, and these as a file."""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finevote.backbones.rollout import attention_rollout
from finevote.errors import RunError
from finevote.evaluation.curves import delete_and_insert, patch_counts
from finevote.evaluation.patch_orders import order_by_votes, order_patches, random_orders
from finevote.evaluation.predict import evaluation_mode
from finevote.evaluation.predictions import MEASURE_AGAIN, read_arrays
from finevote.files import atomic_write
from finevote.types import Batch, Record

NUM_STEPS, NUM_DRAWS = 16, 3
VOTES, RANDOM, ROLLOUT = "votes", "random", "rollout"
FORMAT_VERSION = 1
_NAMES = (
    "format_version",
    "image_ids",
    "orders",
    "shares",
    "deletion",
    "insertion",
    "num_draws",
    "weights_sha256",
    "keep_rate",
)
_ROUNDING = 1e-5  # of sums of float32
_NOT_CURVES = (OSError, ValueError, LookupError, TypeError)


@dataclass(frozen=True)
class FaithfulnessCurves:
    """What a model says of n images while patches are taken away or brought in, in O orders, after 0 to S steps.

    `shares` (S + 1,) of the patches are changed after each step; `deletion` and `insertion` (n, O, S + 1) float32 are
    the probability of the class that it names for the whole view. Those at random are means of `num_draws` orders.
    `weights_sha256` and `keep_rate` tell which model it was.
    """

    image_ids: tuple[str, ...]
    orders: tuple[str, ...]
    shares: NDArray[np.float64]
    deletion: NDArray[np.float32]
    insertion: NDArray[np.float32]
    num_draws: int = NUM_DRAWS
    weights_sha256: str = ""
    keep_rate: float = 1.0


def follow_orders(
    model: nn.Module,
    loader: Iterable[Batch],
    *,
    records: Sequence[Record],
    device: torch.device | str,
    num_steps: int = NUM_STEPS,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> FaithfulnessCurves:
    """Return the curves of every image that the loader yields: by votes where final ones are cast, random, by rollout.

    The model runs in evaluation mode, and no more of its views at once than a batch has images. Probabilities are the
    softmax of its logits, at temperature 1.

    Args:
        model: a `FineGrainedClassifier`.
        loader: of normalised images.
        records: those that the batches' indices number.
        device: where the model is.
        num_steps: S, in which all patches are changed; fewer where there are fewer patches.
        num_draws: orders at random for each image.
        seed: of these; an image's are the same in any batch.
        advance: called with the number of forward passes of an image just done.
    """
    grid: tuple[int, int] = model.backbone.grid  # type: ignore[union-attr, assignment]

    def score(images: Tensor) -> Tensor:
        probabilities: Tensor = model(images).logits.float().softmax(-1)  # (B, C)
        return probabilities

    ids: list[str] = []
    deletion: list[NDArray[np.float32]] = []
    insertion: list[NDArray[np.float32]] = []
    names: tuple[str, ...] = ()
    with evaluation_mode(model), torch.inference_mode():
        for batch in loader:
            images = batch.images.to(device)
            image_ids = [records[index].image_id for index in batch.indices.tolist()]
            orders = _find_orders(model, images, image_ids, num_draws=num_draws, seed=seed)
            flat = [order for group in orders.values() for order in group]
            found = delete_and_insert(images, flat, grid=grid, score=score, num_steps=num_steps, advance=advance)
            sizes = [len(group) for group in orders.values()]
            deletion.append(_average(found.deletion, sizes))
            insertion.append(_average(found.insertion, sizes))
            ids += image_ids
            names = tuple(orders)
    counts = patch_counts(grid[0] * grid[1], num_steps=num_steps)
    return FaithfulnessCurves(
        image_ids=tuple(ids),
        orders=names,
        shares=np.array(counts, np.float64) / counts[-1],
        deletion=np.concatenate(deletion),
        insertion=np.concatenate(insertion),
        num_draws=num_draws,
    )


def save_curves(path: Path, curves: FaithfulnessCurves) -> None:
    """Write the curves as a .npz of plain arrays; the file appears whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        format_version=np.array(FORMAT_VERSION),
        image_ids=np.array(curves.image_ids, np.str_),
        orders=np.array(curves.orders, np.str_),
        shares=curves.shares,
        deletion=curves.deletion,
        insertion=curves.insertion,
        num_draws=np.array(curves.num_draws),
        weights_sha256=np.array(curves.weights_sha256),
        keep_rate=np.array(curves.keep_rate),
    )
    atomic_write(path, content.getvalue())


def load_curves(path: Path, *, advice: str = MEASURE_AGAIN) -> FaithfulnessCurves:
    """Return what `save_curves` wrote; `advice` ends an error.

    Raises:
        RunError: the file is missing, cut, not ours, or its arrays do not fit together.
    """
    try:
        arrays = read_arrays(path)
        if problem := _find_problem(arrays):
            raise ValueError(problem)
        return FaithfulnessCurves(
            image_ids=tuple(arrays["image_ids"].tolist()),
            orders=tuple(arrays["orders"].tolist()),
            shares=arrays["shares"].astype(np.float64),
            deletion=arrays["deletion"].astype(np.float32),
            insertion=arrays["insertion"].astype(np.float32),
            num_draws=int(arrays["num_draws"]),
            weights_sha256=str(arrays["weights_sha256"]),
            keep_rate=float(arrays["keep_rate"]),
        )
    except _NOT_CURVES as error:
        raise RunError(f"cannot read the deletion and insertion curves {path} ({error}): {advice}") from None


def _find_problem(arrays: dict[str, NDArray[Any]]) -> str | None:
    """Return what does not fit, in words."""
    if missing := set(_NAMES) - set(arrays):
        return f"no {', '.join(sorted(missing))}"
    if arrays["format_version"] != FORMAT_VERSION:
        return f"format_version is {arrays['format_version']}, but this finevote reads {FORMAT_VERSION}"
    shares, orders = arrays["shares"], arrays["orders"].tolist()
    shape = (len(arrays["image_ids"]), len(orders), len(shares))
    if 0 in shape or (shares[0], shares[-1]) != (0, 1) or (np.diff(shares) <= 0).any():
        return f"{shape[0]} images in {shape[1]} orders, with shares that do not go up from 0 to 1"
    if orders not in ([VOTES, RANDOM, ROLLOUT], [RANDOM, ROLLOUT]):
        return f"its orders are {', '.join(map(str, orders))}"
    wrong = [name for name in ("deletion", "insertion") if not _are_probabilities(arrays[name], shape)]
    return f"{' and '.join(wrong)} are no probabilities of shape {shape}" if wrong else None


def _are_probabilities(values: NDArray[Any], shape: tuple[int, ...]) -> bool:
    return values.shape == shape and bool(((values >= 0) & (values <= 1 + _ROUNDING)).all())


def _find_orders(
    model: Any, images: Tensor, image_ids: Sequence[str], *, num_draws: int, seed: int
) -> dict[str, list[Tensor]]:
    """Return for each way to order patches one (B, P), or several that count together."""
    votes = model(images).votes
    by_votes = None if votes is None else order_by_votes(votes)
    rolled = attention_rollout(model.backbone, images)  # (B, P)
    drawn = random_orders(image_ids, rolled.shape[1], num_draws=num_draws, seed=seed).to(images.device)
    others = {RANDOM: list(drawn), ROLLOUT: [order_patches(rolled)]}
    return others if by_votes is None else {VOTES: [by_votes], **others}


def _average(curves: Tensor, sizes: Sequence[int]) -> NDArray[np.float32]:
    """Return the means (B, O, S + 1) of curves (B, sum of sizes, S + 1) that count together."""
    groups = torch.split(curves, list(sizes), dim=1)
    return torch.stack([group.mean(1) for group in groups], dim=1).float().cpu().numpy()
