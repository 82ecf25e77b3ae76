"""`finevote sweep`: a recipe over seeds, and over the alternatives of settings, resumably, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

from rich.console import Console

from finevote.config import load_config
from finevote.errors import ConfigError
from finevote.study.compare import compare_contestants
from finevote.study.comparison import Comparison
from finevote.study.contestants import open_album
from finevote.study.tables import write_tables
from finevote.study.trials import Trial, Variant, check_trials, measure_trials, plan_trials, run_trials
from finevote.training.prepare import slug

AS_IT_IS = "as it is"


def sweep(
    recipe: str,
    data: str | Path,
    *,
    num_seeds: int = 5,
    settings: Sequence[str] = (),
    split: str = "val",
    out: Path | None = None,
    devices: int = 1,
    skip_bad: bool = False,
    on_comparison: Callable[[Comparison], object] | None = None,
) -> tuple[Comparison, Path]:
    """Train a recipe with several seeds and every combination of alternatives; return what was found and the folder.

    The same call goes on where an earlier one stopped: finished runs are kept, an interrupted one is resumed.
    `sweep.md`, `.csv`, `.json` and `.png` are written anew whenever a run is finished.

    Args:
        recipe: a recipe's name or a YAML file.
        data: what `open_source` takes.
        num_seeds: seeds 0, 1, ...
        settings: `name=value`, or with alternatives `name=value|value|...`; the first combination is compared with.
        split: measured on, "val" or "test", whose every first look with a run is entered in its ledger.
        out: the folder; None is `runs/sweep-<recipe>-<data name>`.
        devices: as for `fit`.
        skip_bad: as for `fit`.
        on_comparison: called with the last comparison.

    Raises:
        ConfigError: a setting is not valid.
        RunError: the folder holds runs of other settings or data.
        As `fit` and `evaluate` do.
    """
    root = out or default_folder("sweep", recipe, data)
    trials = plan_trials(recipe, combine(settings), num_seeds=num_seeds, root=root)
    title = f"{load_config(recipe).name} on {Path(data).name}"
    return study(
        trials,
        data,
        root,
        title=title,
        stem="sweep",
        split=split,
        devices=devices,
        skip_bad=skip_bad,
        show=on_comparison,
    )


def default_folder(kind: str, recipe: str, data: str | Path) -> Path:
    """Return `runs/<kind>-<recipe>-<data>`, the same for the same command, so that this goes on."""
    return Path("runs") / f"{kind}-{slug(recipe)}-{slug(str(data))}"


def combine(settings: Sequence[str]) -> list[Variant]:
    """Return every combination of `name=value|value` alternatives, named by what varies.

    Raises:
        ConfigError: a setting has no `=`, or an empty alternative.
    """
    choices: list[list[str]] = []
    for setting in settings:
        name, equals, text = setting.partition("=")
        values = text.split("|")
        if not equals or not name or (len(values) > 1 and not all(values)):
            raise ConfigError(
                f"--set {setting!r} must look like section.field=value, or section.field=value|value to try each"
            )
        choices.append([f"{name}={value}" for value in values])
    varied = [number for number, values in enumerate(choices) if len(values) > 1]
    return [
        Variant(", ".join(combination[number] for number in varied) or AS_IT_IS, combination)
        for combination in product(*choices)
    ]


def study(
    trials: Sequence[Trial],
    data: str | Path,
    root: Path,
    *,
    title: str,
    stem: str,
    split: str,
    devices: int,
    skip_bad: bool,
    show: Callable[[Comparison], object] | None,
) -> tuple[Comparison, Path]:
    """Train what is not finished, with a table under way and at the end; return the last one and the folder."""
    check_trials(trials, data, split=split)

    def tabulate() -> Comparison:
        contestants = measure_trials(trials, split=split)
        album = open_album(contestants[0].runs[0].path, split=split)
        comparison = compare_contestants(contestants, split=split, album=album)
        write_tables(comparison, contestants, root, title=title, stem=stem)
        return comparison

    for _ in run_trials(trials, data, devices=devices, skip_bad=skip_bad, console=Console()):
        tabulate()
    comparison = tabulate()
    if show is not None:
        show(comparison)
    return comparison, root
