"""Many trainings in one folder, `VARIANT/seed-N`: the finished ones are kept, the interrupted ones gone on with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from finevote.bundle.manifest import MANIFEST_NAME
from finevote.config import Config, load_config
from finevote.data.opening import data_argument
from finevote.data.registry import open_source
from finevote.errors import ArgumentError, RunError
from finevote.run_folder import RunFolder
from finevote.study.contestants import Contestant, load_measured
from finevote.training.fit import fit, resume
from finevote.training.prepare import SPLITS

_SEED = "training.seed"
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
        ArgumentError: no seeds, a variant sets the seed, or two variants would share a folder or are the same.
        ConfigError: a setting is not valid.
    """
    if num_seeds < 1:
        raise ArgumentError(f"seeds={num_seeds} must be at least 1")
    if any(setting.partition("=")[0].strip() == _SEED for variant in variants for setting in variant.settings):
        raise ArgumentError(f"{_SEED} cannot be set here: every variant is trained with the seeds 0, 1, ... (--seeds)")
    folders = [_folder_name(variant.name) for variant in variants]
    twice = sorted({name for name in folders if folders.count(name) > 1})
    if twice:
        raise ArgumentError(f"two variants are called {', '.join(twice)}: leave out one")
    fixed = () if load_config(recipe).data.validation_seed is not None else ("data.validation_seed=0",)
    trials = [
        Trial(
            variant.name,
            seed,
            load_config(recipe, (*fixed, *variant.settings, f"{_SEED}={seed}")),
            root / folder / f"seed-{seed}",
        )
        for seed in range(num_seeds)
        for variant, folder in zip(variants, folders, strict=True)
    ]
    for number, trial in enumerate(trials[: len(variants)]):
        if same := [other.variant for other in trials[:number] if other.config == trial.config]:
            raise ArgumentError(f"{same[0]!r} and {trial.variant!r} are the same settings: leave out one")
    return trials


def check_trials(trials: Sequence[Trial], data: str | Path, *, split: str) -> None:
    """Refuse, before anything is trained, data that cannot be measured on and folders with other runs.

    Raises:
        ArgumentError: there will be no validation images to measure on, or not the same images for all.
        RunError: a folder holds a run of other settings or other data, or that of all trials is a run or a bundle.
    """
    config, root = trials[0].config, trials[0].path.parents[1]
    if RunFolder(root).config_yaml.is_file() or (root / MANIFEST_NAME).is_file():
        raise RunError(f"{root} is itself a run or a bundle: give another --out, a folder that runs can be put into")
    source = open_source(data, splits=SPLITS, protocol=config.data.protocol)
    if split == "val" and not source.splits.get("val") and config.data.validation_fraction == 0:
        raise ArgumentError("data.validation_fraction=0 leaves no validation images: give --split test, or a share")
    is_held_out = split == "val" and not source.splits.get("val")
    chosen = [_choosing_images(trial.config, is_held_out=is_held_out) for trial in trials]
    if differing := [name for name in chosen[0] if len({choice[name] for choice in chosen}) > 1]:
        advice = "; or give --split test" if all(name.startswith("data.validation") for name in differing) else ""
        raise ArgumentError(
            f"{' and '.join(differing)} must be the same for all variants: it chooses the images that they are "
            f"measured on, and only on the same ones can they be compared{advice}"
        )
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


def _choosing_images(config: Config, *, is_held_out: bool) -> dict[str, object]:
    """Return by name what chooses the images that a training is measured on; None where a setting has no part in it.

    `is_held_out` tells that they are held out of the training images.
    """
    data = config.data
    seed = config.training.seed if data.validation_seed is None else data.validation_seed
    are_drawn = is_held_out or (isinstance(data.hold_out_classes, int) and data.hold_out_classes > 0)
    return {
        "data.protocol": data.protocol,
        "data.hold_out_classes": data.hold_out_classes,
        "data.validation_fraction": data.validation_fraction if is_held_out else None,
        "data.validation_seed": seed if are_drawn else None,
    }


def _folder_name(variant: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", variant).strip("-.") or "variant"


def _remove_stub(path: Path) -> None:
    """Remove what was left by a `fit` that was killed before its run had settings: nothing of it can be used."""
    if path.is_dir() and {item.name for item in path.iterdir() if item.suffix != ".tmp"} <= _BEFORE_LEARNING:
        shutil.rmtree(path)
