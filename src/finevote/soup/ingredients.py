"""The runs that a soup is made of: finished, of one architecture, and divided alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finevote.bundle.additions import added_files
from finevote.bundle.checks import REPLACEABLE, check_files
from finevote.bundle.manifest import WEIGHTS_NAME, Manifest, read_manifest
from finevote.data.items import list_some
from finevote.errors import ArgumentError, DataError
from finevote.measure.opening import count_openings
from finevote.predictor import find_bundle
from finevote.run_folder import RunFolder

_logger = logging.getLogger(__name__)

_OF_TRAINING = frozenset(  # settings of the model that leave no trace in a finished one but in its weights
    {
        "model.drop_path",
        "model.dropout",
        "model.zero_init_classifier",
        "model.classifier_from_probe",
        "model.voting.block_init",
        "model.voting.initial_rates",
        "model.voting.dynamic_selection",
        "model.voting.dynamic_warmup_epochs",
        "model.voting.dynamic_momentum",
    }
)
_NUM_NAMED = 4  # differences in an error


@dataclass(frozen=True)
class Ingredient:
    """A finished run; of its bundle everything was checked that a soup does not make anew."""

    folder: RunFolder
    manifest: Manifest
    num_test_openings: int

    @property
    def name(self) -> str:
        """The run as it was given."""
        return str(self.folder.path)

    @property
    def bundle(self) -> Path:
        """The folder of its bundle."""
        return find_bundle(self.folder.path)

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.bundle / WEIGHTS_NAME

    @property
    def weights_sha256(self) -> str:
        """What its weights are told by."""
        return self.manifest.files[WEIGHTS_NAME].sha256

    @property
    def seed(self) -> int | None:
        """Of its training; None where the bundle does not say."""
        seed = self.manifest.details.get("seed")
        return seed if isinstance(seed, int) else None


def load_ingredients(runs: Sequence[Path | str]) -> list[Ingredient]:
    """Return the runs, in the order given, if their weights can be averaged and compared.

    Raises:
        ArgumentError: fewer than two, one twice, two of the same weights, or of different classes or architectures.
        BundleError: a run has no bundle, or it is not as it was written.
        DataError: they were divided differently, or have no validation split.
        RunError: one is no run.
    """
    if len(runs) < 2:
        raise ArgumentError("a soup takes two runs or more: give at least two")
    ingredients = [_load(Path(run)) for run in runs]
    for number, one in enumerate(ingredients):
        for other in ingredients[:number]:
            if one.weights_sha256 == other.weights_sha256:
                raise ArgumentError(f"{one.name} has the very weights of {other.name}: give each only once")
    for other in ingredients[1:]:
        _check_same_model(ingredients[0], other)
        _check_same_split(ingredients[0], other)
    return ingredients


def _load(path: Path) -> Ingredient:
    folder = RunFolder.open(path)
    place = find_bundle(folder.path)
    manifest = read_manifest(place)
    check_files(place, manifest, passed_over=REPLACEABLE)
    if not folder.read_json(folder.split_json)["splits"].get("val"):
        raise DataError(f"{path} was trained without validation, by which a soup is chosen: leave it out")
    if added_files(manifest.files):
        _logger.warning("the classes added to %s rest on its own weights, and are left out of the soup", path)
    return Ingredient(folder, manifest, count_openings(folder).num)


def _check_same_model(first: Ingredient, other: Ingredient) -> None:
    one, two = first.manifest, other.manifest
    if one.class_names != two.class_names:
        differing = sorted(set(one.class_names) ^ set(two.class_names))
        what = f"only one has {list_some(differing, noun='class')}" if differing else "in another order"
        raise ArgumentError(
            f"{first.name} and {other.name} have different classes ({len(one.class_names)} and "
            f"{len(two.class_names)}; {what}): average runs of the same classes"
        )
    if differing := _differences(_describe(one), _describe(two)):
        named = "; ".join(differing[:_NUM_NAMED]) + ("; ..." if len(differing) > _NUM_NAMED else "")
        raise ArgumentError(
            f"{first.name} and {other.name} are not of one architecture ({named}): average runs that differ only in "
            "how they were trained"
        )


def _describe(manifest: Manifest) -> dict[str, Any]:
    """Return everything that makes the same weights another model."""
    model = manifest.config["model"]
    settings = {f"model.{name}": value for name, value in model.items() if name != "voting"}
    settings |= {f"model.voting.{name}": value for name, value in model["voting"].items()}
    preprocessing = {f"preprocessing.{name}": value for name, value in vars(manifest.preprocessing).items()}
    kept = {name: value for name, value in settings.items() if name not in _OF_TRAINING}
    return {**kept, "model.voting.keep_rate": manifest.keep_rate, **preprocessing}


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    names = sorted(first.keys() | other.keys())
    return [
        f"{name} is {first.get(name)} and {other.get(name)}" for name in names if first.get(name) != other.get(name)
    ]


def _check_same_split(first: Ingredient, other: Ingredient) -> None:
    """Refuse runs that were fitted to or chosen on other images: one's training images would flatter the average."""
    one, two = (item.folder.read_json(item.folder.split_json)["splits"] for item in (first, other))
    for split in ("train", "val"):
        if differing := sorted(set(one.get(split, ())) ^ set(two.get(split, ()))):
            raise DataError(
                f"{first.name} and {other.name} have different {split} splits (only one has "
                f"{list_some(differing, noun='image')}), and images that one was fitted to would flatter the average: "
                "fit them with one data.validation_seed"
            )
