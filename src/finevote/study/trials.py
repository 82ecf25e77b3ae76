"""Many trainings in one folder, `VARIANT/seed-N`: the finished ones are kept, the interrupted ones gone on with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from finevote.config import Config, load_config
from finevote.data.opening import data_argument
from finevote.data.registry import open_source
from finevote.errors import ArgumentError, RunError
from finevote.run_folder import RunFolder
from finevote.study.contestants import Contestant, load_measured
from finevote.training.fit import fit, resume
from finevote.training.prepare import SPLITS

_BEFORE_LEARNING = {"checkpoints", "split.json", "data.json", ".lock"}


class Variant(NamedTuple):
    """A recipe changed by settings, under a name for people."""

    name: str
    settings: tuple[str, ...]


class Trial(NamedTuple):
    """One training: a variant with one seed, in its own run folder."""

    variant: str
    seed: int
    config: Config
    path: Path


def plan_trials(recipe: str, variants: Sequence[Variant], *, num_seeds: int, root: Path) -> list[Trial]:
    """Return every variant with seeds from 0, a round of all variants before the next seed.

    Held-out validation images are the same ones for every seed, unless the recipe has its own `data.validation_seed`.

    Raises:
        ArgumentError: no seeds, or two variants would share a folder.
        ConfigError: a setting is not valid.
    """
    if num_seeds < 1:
        raise ArgumentError(f"seeds={num_seeds} must be at least 1")
    folders = [_folder_name(variant.name) for variant in variants]
    twice = sorted({name for name in folders if folders.count(name) > 1})
    if twice:
        raise ArgumentError(f"two variants are called {', '.join(twice)}: leave out one")
    fixed = () if load_config(recipe).data.validation_seed is not None else ("data.validation_seed=0",)
    return [
        Trial(
            variant.name,
            seed,
            load_config(recipe, (*fixed, *variant.settings, f"training.seed={seed}")),
            root / folder / f"seed-{seed}",
        )
        for seed in range(num_seeds)
        for variant, folder in zip(variants, folders, strict=True)
    ]


def check_trials(trials: Sequence[Trial], data: str | Path, *, split: str) -> None:
    """Refuse, before anything is trained, data that cannot be measured on and folders with other runs.

    Raises:
        ArgumentError: there will be no validation images to measure on.
        RunError: a folder holds a run of other settings or other data.
    """
    config = trials[0].config
    source = open_source(data, splits=SPLITS, protocol=config.data.protocol)
    if split == "val" and not source.splits.get("val") and config.data.validation_fraction == 0:
        raise ArgumentError("data.validation_fraction=0 leaves no validation images: give --split test, or a share")
    argument = data_argument(data, source)
    for trial in trials:
        run = RunFolder(trial.path)
        if not run.config_yaml.is_file():
            continue
        if load_config(run.config_yaml) != trial.config:
            raise RunError(f"{trial.path} holds a run of other settings: give another --out, or delete it")
        if run.read_json(run.data_json)["data"] != argument:
            raise RunError(f"{trial.path} holds a run on other data than {argument}: give another --out, or delete it")


def run_trials(
    trials: Sequence[Trial], data: str | Path, *, devices: int, skip_bad: bool, console: Console
) -> Iterator[Trial]:
    """Train what is not finished, and yield each of these trials when it is.

    Raises:
        KeyboardInterrupt: a training was told to stop; its state is saved.
        As `fit` does.
    """
    for number, trial in enumerate(trials, start=1):
        run, what = RunFolder(trial.path), f"{number} of {len(trials)}: {trial.variant}, seed {trial.seed}"
        if run.bundle.exists():
            console.print(f"{what}: finished before", markup=False, highlight=False)
            continue
        console.print(f"\n{what}", markup=False, highlight=False, style="bold")
        try:
            if run.config_yaml.is_file():
                resume(trial.path, devices=devices)
            else:
                _remove_stub(trial.path)
                fit(trial.config, data, out=trial.path, devices=devices, skip_bad=skip_bad)
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from here", highlight=False)
            raise
        yield trial


def measure_trials(trials: Sequence[Trial], *, split: str) -> list[Contestant]:
    """Return the finished trials by variant, measured on the same images, in the order of variants.

    Raises as `load_measured` does.
    """
    finished = [trial for trial in trials if RunFolder(trial.path).bundle.exists()]
    measured = load_measured([trial.path for trial in finished], split=split)
    names = dict.fromkeys(trial.variant for trial in finished)
    return [
        Contestant(name, tuple(run for run, trial in zip(measured, finished, strict=True) if trial.variant == name))
        for name in names
    ]


def _folder_name(variant: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", variant).strip("-.") or "variant"


def _remove_stub(path: Path) -> None:
    """Remove what was left by a `fit` that was killed before its run had settings: nothing of it can be used."""
    if path.is_dir() and {item.name for item in path.iterdir() if item.suffix != ".tmp"} <= _BEFORE_LEARNING:
        shutil.rmtree(path)
