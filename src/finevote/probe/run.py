"""Probing: a data set by itself, a run before its first step, and a run's split beside its model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from finevote.config import Config
from finevote.data.hold_out import choose_classes, without_classes
from finevote.data.images import check_images, without
from finevote.data.registry import open_source
from finevote.data.splits import with_validation
from finevote.devices import find_accelerator
from finevote.errors import DataError, plain_message
from finevote.evaluation.probes import CHOSEN_ON_VALIDATION, ProbeAnswers, accuracy_table
from finevote.evaluation.rows import subject_names
from finevote.probe.features import Extractor, Features
from finevote.probe.fitted import FittedProbes, fit_probes, labels_of, load_probes, save_probes
from finevote.run_folder import RunFolder
from finevote.types import DataSource, Record

SPLITS = ("train", "val")  # the test split stays closed
_RANDOM_WEIGHTS = "the weights are random: this tells what can be had without training, and nothing of the backbone"


@dataclass(frozen=True)
class Probing:
    """What `finevote probe` found. `num_cached` of `num_images` had their features kept from before."""

    data: str
    setting: str
    weights: str
    data_notes: tuple[str, ...]
    probes: FittedProbes
    num_images: int
    num_cached: int

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON; shares are fractions."""
        told = {"data": self.data, "setting": self.setting, "weights": self.weights}
        return {**told, **self.probes.to_dict(), "num_cached": self.num_cached, "notes": self.notes()}

    def notes(self) -> list[str]:
        """Return what is to be known of the figures."""
        random = [_RANDOM_WEIGHTS] if self.weights == "none" else []
        return [
            CHOSEN_ON_VALIDATION,
            *random,
            *(f"{self.data}: {note}" for note in self.data_notes),
            self._cache_note(),
        ]

    def table(self) -> RenderableType:
        """Return the figures and notes as `rich` prints them."""
        probes = self.probes
        head = f"{self.data}: {probes.num_validation:,} validation images of {probes.num_classes} classes"
        rows = accuracy_table(probes.space.backbone, probes.names, probes.accuracies)
        notes = [Text(f"\n{note}") for note in self.notes()]
        return Group(Text.assemble((head, "bold"), f"\n{self.setting}"), "", rows, *notes)

    def _cache_note(self) -> str:
        return f"features of {self.num_cached:,} of {self.num_images:,} images were kept from before"


def probe(data: str | Path, config: Config, *, skip_bad: bool = False) -> Probing:
    """Measure how far the frozen backbone of some settings comes on a data set's validation images.

    Classes that are held out and the validation split are those of `fit` with these settings. The test split is not
    opened.

    Args:
        data: what `open_source` takes.
        config: names the backbone, its weights and how images are read.
        skip_bad: look at every image first, and leave the unreadable ones out instead of refusing.

    Raises:
        ArgumentError, UnsupportedModelError, WeightsError: as `build_backbone`.
        DataError: the data set is missing or malformed, has no validation images, or an image cannot be read.
    """
    source = open_source(data, splits=SPLITS, protocol=config.data.protocol)
    is_held_out = not source.splits.get("val")
    seed = config.training.seed if config.data.validation_seed is None else config.data.validation_seed
    held_out = choose_classes(source.class_names, config.data.hold_out_classes, seed=seed)
    if skip_bad:
        source = without(source, check_images(source, SPLITS))
    source = with_validation(source, fraction=config.data.validation_fraction, seed=seed)
    source = without_classes(source, held_out)
    if not source.splits.get("val"):
        raise DataError(f"{source.name} has no validation images to choose by: set data.validation_fraction above 0")
    try:
        probes, num_cached = probe_source(source, config)
    except DataError as error:
        raise DataError(f"{plain_message(error)}: mend it, or leave it out with --skip-bad") from None
    return Probing(
        data=source.name,
        setting=_describe_setting(source, is_held_out=is_held_out),
        weights=config.model.weights,
        data_notes=source.notes,
        probes=probes,
        num_images=sum(len(source.splits[split]) for split in SPLITS),
        num_cached=num_cached,
    )


def _describe_setting(source: DataSource, *, is_held_out: bool) -> str:
    protocol = f"protocol {source.protocol}: " if source.protocol else ""
    train, val = (f"{len(source.splits[split]):,}" for split in SPLITS)
    chosen = f"{val} {'held out of training' if is_held_out else 'of validation'}"
    return f"{protocol}fitted to {train} images, k and penalty chosen on {chosen}"


def probe_source(source: DataSource, config: Config) -> tuple[FittedProbes, int]:
    """Return the probes of a source that has training and validation images, and how many features were kept."""
    extractor = Extractor(config)
    found: dict[str, Features] = {}
    for split, what in (("train", "training images"), ("val", "validation images")):
        found[split] = extractor.features(source, source.splits[split], what=what)
    labels = {split: labels_of(source.splits[split]) for split in SPLITS}
    probes = fit_probes(
        found["train"],
        labels["train"],
        found["val"],
        labels["val"],
        space=extractor.space,
        num_classes=len(source.class_names),
        groups=subject_names(source.splits["val"]),
        device=find_accelerator(),
    )
    return probes, sum(features.num_cached for features in found.values())


def probe_run(folder: RunFolder, source: DataSource, config: Config, *, console: Console) -> None:
    """Probe a run's backbone before its first step, unless that has been done, and keep the probes in the run.

    Args:
        folder: of the run.
        source: its training and validation images, as they are divided.
        config: its settings.
        console: for the figures.
    """
    if folder.probe_json.exists():
        return
    probes, _ = probe_source(source, config)
    save_probes(probes, arrays=folder.probe_arrays, description=folder.probe_json)
    console.print(accuracy_table(probes.space.backbone, probes.names, probes.accuracies))
    console.print(f"  {CHOSEN_ON_VALIDATION}", highlight=False, markup=False, soft_wrap=True)


def ask_probes(folder: RunFolder, source: DataSource, records: tuple[Record, ...], config: Config) -> ProbeAnswers:
    """Return what a run's probes say of images.

    Raises:
        RunError: the run's probes cannot be read.
        WeightsError: features are missing, and the weights that they are of cannot be had.
    """
    probes = load_probes(arrays=folder.probe_arrays, description=folder.probe_json)
    features = Extractor(config, space=probes.space).features(source, records)
    classes = probes.classify(features, device=find_accelerator())
    image_ids = tuple(record.image_id for record in records)
    return ProbeAnswers(probes.space.backbone, len(probes.bank_labels), probes.names, image_ids, classes)
