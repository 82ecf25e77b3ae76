"""`finevote ablate`: what each mechanism of the method is worth, by leaving out one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from finevote.config import Config, load_config
from finevote.errors import ArgumentError, suggest
from finevote.study.comparison import Comparison
from finevote.study.sweep import default_folder, study
from finevote.study.trials import Variant, plan_trials

# Everything that voting adds is off: the backbone, whole, with a linear classifier on CLS and cross-entropy.
PLAIN = (
    "model.voting.enabled=false",
    "loss.triplet_weight=0",
    "model.voting.keep_rate=1",
    "training.keep_rate=1",
)
FULL, AS_RECIPE = "full", "the recipe as it is"
LEFT_OUT = {
    "no multi-scale": ("model.voting.dilations=[1]",),
    "no voting (plain)": PLAIN,
    "no triplet": ("loss.triplet_weight=0",),
    "no merging": ("model.voting.merge=false",),
    "no dynamic selection": ("model.voting.dynamic_selection=off",),
    "random-init refinement": ("model.voting.block_init=random",),
}


def ablate(
    recipe: str,
    data: str | Path,
    *,
    num_seeds: int = 3,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
    split: str = "val",
    out: Path | None = None,
    devices: int = 1,
    skip_bad: bool = False,
    on_comparison: Callable[[Comparison], object] | None = None,
) -> tuple[Comparison, Path]:
    """Train a recipe with all mechanisms and with each left out, over seeds; return what was found and the folder.

    It goes on where it was stopped, as `sweep` does. Writes `ablation.md`, `.csv`, `.json` and `.png`.

    Args:
        recipe: a recipe's name or a YAML file; the mechanisms that it leaves off are switched on in "full".
        data: what `open_source` takes.
        num_seeds: seeds 0, 1, ...
        settings: `name=value`, for every variant.
        only: names of variants to train, of `variants_of`; all unless given. "full" is always one.
        split: measured on, "val" or "test", whose every first look with a run is entered in its ledger.
        out: the folder; None is `runs/ablate-<recipe>-<data name>`.
        devices: as for `fit`.
        skip_bad: as for `fit`.
        on_comparison: called with the last comparison.

    Raises:
        ArgumentError: there is no such variant.
        ConfigError: a setting is not valid, or the recipe does not go with a mechanism.
        RunError: the folder holds runs of other settings or data.
        As `fit` and `evaluate` do.
    """
    variants = choose(variants_of(recipe, settings), only)
    root = out or default_folder("ablate", recipe, data)
    trials = plan_trials(recipe, variants, num_seeds=num_seeds, root=root)
    return study(
        trials,
        data,
        root,
        title=f"Ablation of {load_config(recipe).name} on {Path(data).name}",
        stem="ablation",
        split=split,
        devices=devices,
        skip_bad=skip_bad,
        show=on_comparison,
    )


def variants_of(recipe: str, settings: Sequence[str] = ()) -> list[Variant]:
    """Return "full", each mechanism left out of it, and, if it is none of these, the recipe as it is.

    `settings` hold for all, but for what a variant itself is about.

    Raises:
        ConfigError: a setting is not valid, or the recipe does not go with a mechanism.
    """
    config = load_config(recipe, settings)
    full = (*settings, *switch_on(config))
    variants = [Variant(FULL, full), *(Variant(name, (*full, *off)) for name, off in LEFT_OUT.items())]
    as_it_is = Variant(AS_RECIPE, tuple(settings))
    if config in [load_config(recipe, variant.settings) for variant in variants]:
        return variants
    return [*variants, as_it_is]


def switch_on(config: Config) -> tuple[str, ...]:
    """Return the settings that switch on each mechanism that the recipe leaves off."""
    voting, default = config.model.voting, Config()
    wanted = {
        "model.voting.enabled=true": voting.enabled,
        "model.voting.refine=true": voting.refine,
        "model.voting.key=true": voting.key,
        "model.voting.smoothing=fixed": voting.smoothing != "none",
        f"model.voting.dilations={list(default.model.voting.dilations)}": len(voting.dilations) > 1,
        "model.voting.merge=true": voting.merge,
        f"model.voting.dynamic_selection={default.model.voting.dynamic_selection}": voting.dynamic_selection != "off",
        "model.voting.block_init=pretrained": voting.block_init == "pretrained",
        f"loss.triplet_weight={default.loss.triplet_weight}": config.loss.triplet_weight > 0,
    }
    return tuple(setting for setting, is_on in wanted.items() if not is_on)


def choose(variants: Sequence[Variant], only: Sequence[str]) -> list[Variant]:
    """Return the variants that are named, "full" always among them, in their own order; all if none is named.

    Raises:
        ArgumentError: there is no such variant.
    """
    names = [variant.name for variant in variants]
    for name in only:
        if name not in names:
            raise ArgumentError(f"no variant is called {name!r}{suggest(name, names)}")
    return [variant for variant in variants if not only or variant.name in {FULL, *only}]
