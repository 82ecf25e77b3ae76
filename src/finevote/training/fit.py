"""Training a classifier: from settings and data to a run folder with a bundle in it, and on from where one stopped."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from finevote.config import Config, load_config
from finevote.errors import RunError
from finevote.files import remove_temporaries
from finevote.run_folder import RunFolder
from finevote.training.launch import launch, make_fabric, started_by_torchrun
from finevote.training.loop import Training
from finevote.training.prepare import move_data, prepare_run, removed_unless_learned
from finevote.training.probing import probe_first

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def fit(config: Config, data: str | Path, *, out: Path | None = None, devices: int = 1, skip_bad: bool = False) -> Path:
    """Train a classifier and return its run folder, which then holds `bundle/` from the best epoch on validation.

    The frozen backbone is probed first, where the settings want it (`training.probe`). The test split is never opened.
    If it fails before anything was learned, no run folder is left behind.

    Args:
        config: the settings.
        data: "synthetic", or a path that `open_source` understands.
        out: the run folder; None makes `runs/<recipe>-<data name>-<n>`.
        devices: processes that share the work, one for each GPU, or on the CPU.
        skip_bad: leave unreadable images out, and record them, instead of refusing.

    Raises:
        DataError: the data is missing, malformed, or has unreadable images.
        RunError: `out` is taken, or the loss is no longer a number.
        KeyboardInterrupt: the training was told to stop; its state is saved.
    """
    fabric = make_fabric(devices=devices, precision=config.training.precision)
    path, is_there = None, out is not None and out.exists()
    if started_by_torchrun():
        fabric.launch()
    if fabric.is_global_zero:
        path = prepare_run(config, data, out=out, skip_bad=skip_bad, console=Console()).path
    if path is not None:
        with removed_unless_learned(RunFolder(path), keep_folder=is_there):
            probe_first(RunFolder(path), console=Console())
    if started_by_torchrun():
        path = fabric.broadcast(path)
    if path is None:
        raise RunError("the first process made no run folder")
    with removed_unless_learned(RunFolder(path), keep_folder=is_there) if fabric.is_global_zero else nullcontext():
        return _train_everywhere(fabric, path)


def resume(run: Path, *, devices: int = 1, data: str | Path | None = None) -> Path:
    """Go on with an interrupted run, with its own settings, and return its folder.

    On the CPU, with as many devices as before, the weights become those of an uninterrupted run, bit by bit.

    Args:
        run: the run folder.
        devices: as in `fit`.
        data: where the data is now, if it has moved.

    Raises:
        RunError: there is no such run, it is finished, another process trains in it, or its checkpoint is broken.
        DataError: images of the run are missing.
        KeyboardInterrupt: the training was told to stop; its state is saved.
    """
    folder = RunFolder.open(run)
    if folder.bundle.exists():
        raise RunError(f"{run} is finished: measure it with `finevote evaluate {run}`, or start a new run")
    fabric = make_fabric(devices=devices, precision=load_config(folder.config_yaml).training.precision)
    if started_by_torchrun():
        fabric.launch()
    if data is not None and fabric.is_global_zero:
        move_data(folder, data)
    if fabric.is_global_zero:
        probe_first(folder, console=Console())
    if started_by_torchrun():
        fabric.barrier()
    return _train_everywhere(fabric, run)


def _train_everywhere(fabric: Fabric, path: Path) -> Path:
    if not launch(fabric, _train, path):
        raise KeyboardInterrupt
    return path


def _train(fabric: Fabric, path: Path) -> bool:
    """Train in one process; False if it was told to stop first."""
    run = RunFolder(path)
    console = Console(quiet=not fabric.is_global_zero)
    if not fabric.is_global_zero:
        logging.getLogger("finevote").setLevel(logging.ERROR)
    with run.lock() if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            remove_temporaries(run.path)
            remove_temporaries(run.last_checkpoint.parent)
        return Training(fabric, run, console=console).run()
