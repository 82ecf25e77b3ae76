"""How many images a process can hold at once, found by trying on a GPU and by counting on a CPU.

It is a matter of memory alone: gradients do not depend on it, so another machine, or a resumed run, may find another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from finevote.data.cache import free_bytes
from finevote.noise import Noise
from finevote.types import ModelOutput

if TYPE_CHECKING:
    from lightning.fabric import Fabric

_SAFE_SHARE = 0.7  # of the free memory of a CPU; the rest is for the loader's processes and everybody else's
_BYTES_A_SAVED_BYTE = 1.5  # what backward and the widest operation take beside what forward saved, generously
_STATES_A_PARAMETER = 4  # its gradient, two moments, and a bucket for the other processes


def find_micro_batch(num_rows: int, fits: Callable[[int], bool]) -> int:
    """Return the largest of num_rows, its half, its quarter, ... (rounded up) that fits; 1 if none does.

    Args:
        num_rows: this process's share of the effective batch.
        fits: says whether so many images can be held at once; asked from the largest down, never for 1.
    """
    size = num_rows
    while size > 1 and not fits(size):
        size = (size + 1) // 2
    return size


def auto_micro_batch(fabric: Fabric, model: nn.Module, *, image_size: tuple[int, int], num_rows: int) -> int:
    """Return the micro-batch that fits every process.

    Neither weights, buffers nor random numbers change, and no gradient is left behind.

    Args:
        fabric: launched; its precision and device are the training's.
        model: on its device, in training mode, not yet wrapped; what will be trained requires gradients.
        image_size: rows, columns in px.
        num_rows: each process's share of the effective batch.
    """

    def run(size: int) -> None:
        _run(fabric, model, image_size=image_size, size=size)

    num_bytes = _STATES_A_PARAMETER * sum(4 * some.numel() for some in model.parameters() if some.requires_grad)
    if fabric.device.type == "cuda":
        size = find_micro_batch(num_rows, lambda size: _survives(run, size, reserve=num_bytes, device=fabric.device))
    else:
        budget = _SAFE_SHARE * free_bytes() / fabric.world_size - num_bytes
        needed = _BYTES_A_SAVED_BYTE * saved_bytes(model, lambda: run(1))
        size = find_micro_batch(num_rows, lambda size: size * needed <= budget)
    model.zero_grad(set_to_none=True)
    sizes = fabric.all_gather(torch.tensor(size, device=fabric.device))
    return int(sizes.min())


def saved_bytes(model: nn.Module, run: Callable[[], None]) -> int:
    """Return the bytes that autograd keeps from forward to backward while `run` runs, weights and buffers left out."""
    known = {some.untyped_storage().data_ptr() for some in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def _run(fabric: Fabric, model: nn.Module, *, image_size: tuple[int, int], size: int) -> None:
    """Go forward and backward once with `size` blank images."""
    images = torch.zeros(size, 3, *image_size, device=fabric.device)
    with fabric.autocast():
        output: ModelOutput = model(images, Noise(0, 0, size))
        ends = [output.logits, output.embedding, *([] if output.complement is None else [output.complement])]
        total = torch.stack([end.float().sum() for end in ends]).sum()
    total.backward()  # type: ignore[no-untyped-call]


def _survives(run: Callable[[int], None], size: int, *, reserve: int, device: torch.device) -> bool:
    """Say whether so many images can be run while the optimiser's memory is taken."""
    try:
        taken = torch.empty(reserve, dtype=torch.uint8, device=device)
        run(size)
        del taken
    except torch.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
    return True
