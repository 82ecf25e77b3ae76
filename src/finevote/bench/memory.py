"""Peak memory of one contender in one case, each figure in a fresh process."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import nn

from finevote.bench.actions import autocast, prepare
from finevote.bench.contenders import find_contender
from finevote.bench.failure import DOES_NOT_FIT, bounded_memory, describe_failure, status_bytes
from finevote.bench.plan import Case

P = ParamSpec("P")
R = TypeVar("R")
_NUM_RUNS = 2  # the optimiser's state is there from the second step on


class Peak(NamedTuple):
    """Bytes above what the process held before the model was built, None with a reason in `note`."""

    num_bytes: int | None
    note: str = ""


def measure_peak(contender: str, case: Case, *, threads: int | None) -> Peak:
    """Return the peak of weights, gradients, optimiser and activations together, in a process of its own.

    On the CPU it is the process's resident memory above what it was with the libraries loaded and warm; on CUDA
    what PyTorch had allocated on the device.
    """
    try:
        return in_fresh_process(_measure, contender, case, threads)
    except BrokenProcessPool:
        return Peak(None, f"{DOES_NOT_FIT}, or the process was ended from outside")


def in_fresh_process(function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
    """Return what a function returns in a process that has done nothing yet; Ctrl-C ends that one without a word.

    Raises:
        BrokenProcessPool: the process was ended from outside, e.g. for want of memory.
    """
    context = multiprocessing.get_context("spawn")
    quietly = (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(1, mp_context=context, initializer=signal.signal, initargs=quietly) as pool:
        return pool.submit(function, *arguments, **named).result()


def _measure(contender: str, case: Case, threads: int | None) -> Peak:
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        return _on_cuda(contender, case) if case.device == "cuda" else _on_cpu(contender, case)
    except Exception as error:  # noqa: BLE001  (an exception of PyTorch may not be picklable)
        return Peak(None, describe_failure(error))


def _on_cuda(contender: str, case: Case) -> Peak:
    torch.cuda.reset_peak_memory_stats()
    _run(contender, case)
    return Peak(torch.cuda.max_memory_allocated())


def _on_cpu(contender: str, case: Case) -> Peak:
    _load_libraries(case)
    before = status_bytes("VmRSS")
    if before is None:
        return _by_usage(contender, case)
    with contextlib.suppress(OSError):  # where the mark cannot be set back, it was set by the imports, far below
        Path("/proc/self/clear_refs").write_text("5")
    with bounded_memory(case.device):
        _run(contender, case)
    after = status_bytes("VmHWM")
    return Peak(None, "no VmHWM in /proc/self/status") if after is None else Peak(after - before)


def _by_usage(contender: str, case: Case) -> Peak:
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _run(contender, case)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Peak(unit * (after - before), "by ru_maxrss, which is coarser")


def _run(contender: str, case: Case) -> None:
    action = prepare(find_contender(contender), case)
    for _ in range(_NUM_RUNS):
        action()


def _load_libraries(case: Case) -> None:
    """Have the libraries and their threads loaded by a step that is too small to count."""
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(32, 8))
    optimizer = torch.optim.AdamW(model.parameters())
    with autocast(case):
        output = model(torch.zeros(2, 3, 8, 8))
    output.float().sum().backward()
    optimizer.step()
