"""Processes and devices: Fabric, the start of its processes, and the wish to stop.

One command trains on one device in its own process, and on several by spawning one process each. Under torchrun the
processes are there already and each of them runs the whole command.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from finevote.devices import find_accelerator
from finevote.errors import ConfigError, RunError, find_known_error

ResultT = TypeVar("ResultT")
_PRECISIONS: Mapping[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


def make_fabric(*, devices: int, precision: str) -> Fabric:
    """Return Fabric for this machine: CUDA or MPS devices where there are any, else processes on the CPU.

    Args:
        devices: processes on this machine; under torchrun its own number counts.
        precision: "fp32", "bf16" or "fp16".

    Raises:
        ConfigError: more devices than there are, or fp16 on a CPU.
    """
    _quiet_libraries()
    accelerator = find_accelerator()
    num_nodes = 1
    if started_by_torchrun():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
    _check_devices(accelerator, devices=devices, precision=precision)
    return Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        precision=_PRECISIONS[precision],
        strategy=_QuietStrategy(start_method="popen" if started_by_torchrun() else "spawn")
        if devices * num_nodes > 1
        else "auto",
    )


def started_by_torchrun() -> bool:
    """Say whether torchrun made the processes."""
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def launch(fabric: Fabric, function: Callable[..., ResultT], *args: Any) -> ResultT:
    """Run `function(fabric, *args)` in every process and return what it returns in the first.

    With several processes `function` and `args` must be picklable; a user's error in any of them is raised here, and
    a wish to stop is passed on to them.

    Raises:
        KeyboardInterrupt: the processes were told twice to stop.
        RunError: something else, such as the system for want of memory, ended one of them.
    """
    if started_by_torchrun() or fabric.world_size == 1:
        result: ResultT = fabric.launch(function, *args)
        return result
    environment = {name: os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")}
    stop = StopRequest()
    try:
        with _pass_on_signals(stop):
            result = fabric.launch(function, *args)
    except ProcessRaisedException as error:
        known = find_known_error(error.msg)
        raise known or error from None
    except ProcessExitedException as error:
        if stop.requested or error.signal_name == "SIGINT":
            raise KeyboardInterrupt from None
        if error.signal_name is None:
            raise
        raise RunError(
            f"training process {error.error_index} was ended by {error.signal_name} from outside, most often because "
            "memory ran out: free some, or start with fewer --devices or a smaller training.micro_batch; a run that "
            "has a checkpoint goes on with --resume"
        ) from None
    finally:  # a port left behind would be taken for the user's own by the next launch
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
    return result


class StopRequest:
    """Whether somebody asked for an end; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C (SIGINT) and every SIGTERM into a request; a second Ctrl-C interrupts at once.

    Outside the main thread, where Python does not allow handlers, the request is never set.
    """
    request = StopRequest()
    interrupts = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        request.requested = True

    with _handlers(handle):
        yield request


@contextmanager
def _pass_on_signals(stop: StopRequest) -> Iterator[None]:
    """Ask the spawned processes to stop on the first signal, and end them on a second Ctrl-C; note it in `stop`."""
    interrupts = 0

    def handle(number: int, _: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        stop.requested = True
        for process in multiprocessing.active_children():
            if interrupts > 1:
                process.kill()
            else:
                process.terminate()

    with _handlers(handle):
        yield


@contextmanager
def _handlers(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _QuietStrategy(DDPStrategy):  # type: ignore[misc]  # lightning is not followed by mypy
    """Gradients averaged over processes, without announcements."""

    def setup_environment(self) -> None:
        _quiet_libraries()
        # A spawned process would spawn its loader processes too, which costs each of them an import of torch.
        multiprocessing.set_start_method(multiprocessing.get_all_start_methods()[0], force=True)
        super().setup_environment()


def _quiet_libraries() -> None:
    for chatty in ("lightning.fabric", "lightning.pytorch", "torch.multiprocessing.spawn"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    # Fabric's own call of a function that torch has renamed.
    warnings.filterwarnings("ignore", message=r"torch\.distributed\.nn\.functional\.all_gather is deprecated")


def _check_devices(accelerator: str, *, devices: int, precision: str) -> None:
    available = {"cuda": torch.cuda.device_count(), "mps": 1}.get(accelerator, devices)
    if devices > available:
        raise ConfigError(f"--devices {devices} asks for more than the {available} GPUs of this machine: lower it")
    if precision == "fp16" and accelerator == "cpu":
        raise ConfigError("training.precision=fp16 needs a GPU, but this machine has none: use bf16 or fp32")
