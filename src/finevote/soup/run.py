"""`finevote soup`: runs averaged, chosen on validation alone, and kept as a run of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finevote.bundle.read import Bundle, load_bundle
from finevote.bundle.write import save_bundle
from finevote.config import config_from_values, dump_config
from finevote.errors import ArgumentError, BundleError, suggest
from finevote.evaluation.metrics import top_k_correct
from finevote.evaluation.paired import paired_bootstrap, paired_test
from finevote.evaluation.shares import Groups, share
from finevote.files import atomic_folder, atomic_write
from finevote.measure.calibrate import calibration_of
from finevote.measure.opening import open_split
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.run_folder import RunFolder, next_run_path
from finevote.soup.findings import GREEDY, UNIFORM, Member, Mixed, Soup
from finevote.soup.ingredients import Ingredient, load_ingredients
from finevote.soup.mixing import Chosen, average, choose_greedily
from finevote.torch_engine import TorchEngine
from finevote.types import DataSource

KINDS = (GREEDY, UNIFORM)
_SEED = 0  # of the bootstrap


def make_soup(
    runs: Sequence[Path | str],
    *,
    kind: str = GREEDY,
    out: Path | None = None,
    data: str | Path | None = None,
    on_soup: Callable[[Soup], object] | None = None,
) -> tuple[Soup, Path]:
    """Average the weights of several runs into one classifier (Wortsman et al. 2022), and keep it as a run.

    Both the average of all runs and the greedy one are measured on the validation images, which all runs must share.
    The test split is not opened. The new run has the settings of the best ingredient, the common division of the data,
    a bundle that was calibrated anew, and what was found as `soup.json`.

    Args:
        runs: two or more that `finevote fit` has finished.
        kind: "greedy" or "uniform", the average to keep.
        out: the new run folder; None makes `runs/soup-<n>`.
        data: where the data set lies now, if it has moved.
        on_soup: called with what was found before it is written.

    Raises:
        ArgumentError: there is no such kind, or the runs cannot be averaged.
        BundleError: a bundle is missing or not as it was written.
        DataError: the runs were divided differently, or images of them are missing.
        RunError: one is no run, or `out` is taken.
        StorageError: the run cannot be written.
    """
    if kind not in KINDS:
        raise ArgumentError(f"there is no soup of kind {kind!r}{suggest(kind, KINDS)}")
    if out is not None:
        RunFolder.check_free(out)
    ingredients = load_ingredients(runs)
    vessel = replace(load_bundle(ingredients[0].bundle, with_parts=False), additions=())
    source = open_split(ingredients[0].folder, vessel, split="val", data=data)
    pot = _Pot(ingredients, vessel, source)
    with Meter("soup", total=2 * len(ingredients) * len(source.splits["val"])) as meter:
        soup, chosen = _cook(pot, kind=kind, advance=meter.advance)
    if on_soup is not None:
        on_soup(soup)
    path = out or next_run_path(Path("runs"), "soup")
    _write(path, pot, soup, chosen)
    return soup, path


class _Pot:
    """Averages of the ingredients in one model, each measured on the validation images once."""

    def __init__(self, ingredients: Sequence[Ingredient], vessel: Bundle, source: DataSource) -> None:
        self.ingredients = ingredients
        self.predictor = Predictor(TorchEngine(vessel, device="auto"))
        self.source = source
        self.groups: Groups | None = None
        self._right: dict[Chosen, NDArray[np.bool_]] = {}

    def fill(self, chosen: Chosen) -> None:
        """Put the average of these ingredients into the model."""
        if len(chosen) == 1:  # to the bit
            state = _read(self.ingredients[chosen[0]].weights)
        else:
            state = average(_read(self.ingredients[number].weights) for number in chosen)
        self.predictor.model.load_state_dict(state, strict=True)

    def right(self, chosen: Chosen, advance: Callable[[int], None]) -> NDArray[np.bool_]:
        """Return which images (n,) the average of these ingredients names right."""
        if chosen not in self._right:
            self.fill(chosen)
            num_workers = self.predictor.bundle.config.data.num_workers
            found = self.predictor.predict_records(self.source, "val", num_workers=num_workers, advance=advance)
            self.groups = found.groups
            self._right[chosen] = top_k_correct(found.logits, found.labels, k=1)
        return self._right[chosen]


def _cook(pot: _Pot, *, kind: str, advance: Callable[[int], None]) -> tuple[Soup, Chosen]:
    """Return what was found, and the ingredients of the soup to keep."""
    everything = tuple(range(len(pot.ingredients)))
    alone = [pot.right((number,), advance) for number in everything]
    accuracies = [float(right.mean()) for right in alone]
    greedy = choose_greedily(accuracies, lambda chosen: float(pot.right(chosen, advance).mean()))
    order = sorted(everything, key=lambda number: -accuracies[number])
    best = alone[order[0]]

    def mix(kind: str, chosen: Chosen) -> Mixed:
        right = pot.right(chosen, advance)
        test = paired_test(best, right, groups=pot.groups)
        difference = paired_bootstrap(best, right, seed=_SEED, groups=pot.groups).figure
        names = tuple(pot.ingredients[number].name for number in order if number in chosen)
        return Mixed(kind, names, share(right, groups=pot.groups), difference, *test)

    soup = Soup(
        kind=kind,
        num_images=len(best),
        num_groups=None if pot.groups is None else len(set(pot.groups)),
        members=tuple(
            _member(pot.ingredients[number], alone[number], pot.groups, is_in_greedy=number in greedy)
            for number in order
        ),
        uniform=mix(UNIFORM, everything),
        greedy=mix(GREEDY, greedy),
        is_random=pot.ingredients[0].manifest.config["model"]["weights"] == "none",
    )
    return soup, greedy if kind == GREEDY else everything


def _member(item: Ingredient, right: NDArray[np.bool_], groups: Groups | None, *, is_in_greedy: bool) -> Member:
    return Member(
        run=item.name,
        seed=item.seed,
        accuracy=share(right, groups=groups),
        is_in_greedy=is_in_greedy,
        weights_sha256=item.weights_sha256,
        bundle_sha256=item.manifest.sha256,
        num_test_openings=item.num_test_openings,
    )


def _write(path: Path, pot: _Pot, soup: Soup, chosen: Chosen) -> None:
    """Write the run of a soup, which appears whole or not at all."""
    pot.fill(chosen)
    calibration = calibration_of(pot.predictor, pot.source)
    best = next(item for item in pot.ingredients if item.name == soup.members[0].run)
    config = config_from_values(best.manifest.config, source=f"the settings of {best.name}")
    divided, known = (best.folder.read_json(file) for file in (best.folder.split_json, best.folder.data_json))
    known["setting"] = f"{soup.kind} average of {len(chosen)} of {len(pot.ingredients)} runs; each {known['setting']}"
    with atomic_folder(path) as temporary:
        run = RunFolder(temporary)
        atomic_write(run.config_yaml, dump_config(config))
        atomic_write(run.split_json, _json(divided))
        atomic_write(run.data_json, _json(known))
        atomic_write(run.soup_json, _json(soup.to_dict()))
        save_bundle(
            run.bundle,
            pot.predictor.model,
            config=config,
            class_names=best.manifest.class_names,
            taxonomy=best.manifest.taxonomy,
            preprocessing=best.manifest.preprocessing,
            calibration=calibration,
            details=_details(best, soup, setting=known["setting"]),
        )


def _details(best: Ingredient, soup: Soup, *, setting: str) -> dict[str, Any]:
    """Return what the bundle says of where it came from; runs are named by their folders alone, not by their place."""
    kept = {name: value for name, value in best.manifest.details.items() if name in ("data", "protocol", "weights")}
    ingredients = [
        {
            "run": Path(row.run).name,
            "seed": row.seed,
            "weights_sha256": row.weights_sha256,
            "bundle_sha256": row.bundle_sha256,
            "val_top1": row.accuracy.value,
            "num_test_openings": row.num_test_openings,
            "is_in": row.run in soup.kept.runs,
        }
        for row in soup.members
    ]
    return {
        **kept,
        "setting": setting,
        "soup": {"kind": soup.kind, "ingredients": ingredients},
        "val_top1": soup.kept.accuracy.value,
        "val_num_images": soup.num_images,
    }


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise BundleError(f"cannot read {path} ({error}): the run changed while the soup was made") from error


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
