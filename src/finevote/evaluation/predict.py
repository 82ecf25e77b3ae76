"""Run a model over a loader and keep what it says as arrays."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finevote.evaluation.patch_orders import order_by_votes
from finevote.evaluation.rows import concatenate, subject_names
from finevote.types import Batch, ModelOutput, Predictions, Record


def predict(
    model: nn.Module,
    loader: Iterable[Batch],
    *,
    records: Sequence[Record],
    device: torch.device | str,
    autocast: AbstractContextManager[object] | None = None,
    advance: Callable[[int], None] | None = None,
    on_output: Callable[[Batch, ModelOutput], None] | None = None,
    views: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> Predictions:
    """Return the predictions of every image that the loader yields, one row an image, in the loader's order.

    The model runs in evaluation mode and is put back as it was. `records` are those that the batches' indices number;
    of several processes each gets its own rows, which `merge` puts together. `advance` is called with the number of
    images just done, `on_output` with each batch and the model's output for it. With `views` the model sees of the
    loader's images what these make of them by name; the first is the plain one, whose output all arrays are of.
    """
    plain, *others = (views or {"": _as_it_is}).values()
    parts: list[Predictions] = []
    subjects = subject_names(records)
    with evaluation_mode(model), torch.inference_mode(), autocast or nullcontext():
        for batch in loader:
            images = batch.images.to(device, non_blocking=True)
            output: ModelOutput = model(plain(images))
            rows = _rows(batch, output, records, subjects)
            if views is not None:
                logits = torch.stack([output.logits, *(model(view(images)).logits for view in others)], dim=1)
                rows = replace(rows, view_names=tuple(views), view_logits=_float32(logits))  # (B, V, C)
            parts.append(rows)
            if on_output is not None:
                on_output(batch, output)
            if advance is not None:
                advance(len(batch.indices))
    return concatenate(parts)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode, and each back as it was at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _rows(batch: Batch, output: ModelOutput, records: Sequence[Record], subjects: np.ndarray | None) -> Predictions:
    votes = output.votes
    order = None if votes is None else order_by_votes(votes)  # (B, P)
    return Predictions(
        image_ids=tuple(records[index].image_id for index in batch.indices.tolist()),
        labels=batch.labels.cpu().numpy().astype(np.int64),
        logits=_float32(output.logits),  # (B, C)
        final_votes=None if votes is None else _float32(votes.per_patch()),  # (B, P)
        grid=None if votes is None else votes.grid,
        embeddings=_float32(output.embedding),  # (B, D)
        groups=None if subjects is None else subjects[batch.indices.cpu().numpy()],
        most_voted=None if order is None else order[:, 0].cpu().numpy(),
    )


def _as_it_is(images: Tensor) -> Tensor:
    return images


def _float32(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
