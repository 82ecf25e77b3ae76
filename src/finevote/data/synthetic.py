"""Twelve species of birds in four genera, drawn in code from a seed: no files, no network.

A genus is a body shape. Species of one genus differ in the pattern of one or two small parts and in nothing else;
colours, pose, background and light vary from image to image and tell nothing. The boxes of the telling parts are
known exactly, so one can ask whether a model looks where the difference is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from finevote.data.synthetic_drawing import compose, draw, draw_pose, part_box
from finevote.data.synthetic_shapes import GENERA, Genus
from finevote.errors import ArgumentError, DataError, suggest
from finevote.types import DataSource, Record, Regions, Taxonomy

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("train", "val", "test")
IMAGES_PER_CLASS: Mapping[str, int] = {"train": 80, "val": 20, "test": 40}
MIN_IMAGE_SIZE = 32  # px


class Species(NamedTuple):
    """A genus with the pattern of each of its telling parts."""

    name: str
    genus: Genus
    patterns: Mapping[str, str]


def _species(name: str, **patterns: str) -> Species:
    return Species(name, GENERA[name.partition(" ")[0]], patterns)


SPECIES = (
    _species("Corvella alba", crest="round", breast="ringed"),
    _species("Corvella spinosa", crest="spiky", breast="ringed"),
    _species("Corvella guttata", crest="round", breast="spotted"),
    _species("Ibidella serena", crest="forked", wing="double-barred"),
    _species("Ibidella rotunda", crest="round", wing="double-barred"),
    _species("Ibidella tessera", crest="forked", wing="checked"),
    _species("Anatella lunaris", wing="single-barred", breast="ringed"),
    _species("Anatella gemina", wing="checked", breast="ringed"),
    _species("Anatella sagitta", wing="single-barred", breast="chevroned"),
    _species("Strigella vespera", crest="spiky", breast="chevroned"),
    _species("Strigella furcata", crest="forked", breast="chevroned"),
    _species("Strigella stellata", crest="spiky", breast="spotted"),
)
_LABELS = {species.name.replace(" ", "_"): label for label, species in enumerate(SPECIES)}


def synthetic_source(
    *,
    splits: Sequence[str],
    seed: int = 0,
    image_size: int = 128,
    images_per_class: Mapping[str, int] = IMAGES_PER_CLASS,
) -> DataSource:
    """Return the synthetic birds; an image is drawn when it is read, the same for (seed, split, species, number).

    Args:
        splits: which of "train", "val", "test" to list.
        seed: another seed, another set of images (0 or more).
        image_size: px a side, 32 or more; part boxes do not depend on it.
        images_per_class: images of each species by split; a split left out has its usual count (80, 20, 40).

    Raises:
        ArgumentError: a split is unknown, or a number is out of range.
    """
    counts = {**IMAGES_PER_CLASS, **images_per_class}
    _check(splits=(*splits, *counts), seed=seed, image_size=image_size, counts=counts)
    return DataSource(
        name="synthetic",
        class_names=tuple(species.name for species in SPECIES),
        splits={split: _records(split, counts[split]) for split in splits},
        read=SpeciesArtist(seed=seed, image_size=image_size),
        notes=(f"drawn from seed {seed} at {image_size} px",),
        locate=PartFinder(seed=seed),
        taxonomy=Taxonomy(
            ("species", "genus"), tuple((species.name, species.name.partition(" ")[0]) for species in SPECIES)
        ),
    )


@dataclass(frozen=True, slots=True)
class SpeciesArtist:
    """Draws the image of a record; a plain value, so that loader processes can take it along."""

    seed: int
    image_size: int

    def __call__(self, record: Record) -> Image.Image:
        """Return the RGB image. Raises DataError for an id that `synthetic_source` does not give."""
        split, name, number = _parse(record.image_id)
        species = SPECIES[_LABELS[name]]
        scene = compose(species.genus, _generator(self.seed, split, _LABELS[name], number))
        return draw(species.genus, species.patterns, scene, image_size=self.image_size)


@dataclass(frozen=True, slots=True)
class PartFinder:
    """Knows where the telling parts of a drawn bird are; a plain value, as the artist is."""

    seed: int

    def __call__(self, record: Record) -> Regions:
        """Return the boxes of the parts. Raises DataError for an id that `synthetic_source` does not give."""
        split, name, number = _parse(record.image_id)
        species = SPECIES[_LABELS[name]]
        pose = draw_pose(_generator(self.seed, split, _LABELS[name], number))
        return Regions(parts=tuple(part_box(species.genus, part, pose) for part in species.patterns))


def _generator(seed: int, split: str, label: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), label, number])


def _records(split: str, num_images: int) -> tuple[Record, ...]:
    return tuple(
        Record(image_id=f"{split}/{name}/{number:04d}", label=label)
        for name, label in _LABELS.items()
        for number in range(num_images)
    )


def _parse(image_id: str) -> tuple[str, str, int]:
    split, _, rest = image_id.partition("/")
    name, _, number = rest.partition("/")
    if split not in SPLITS or name not in _LABELS or not number.isdecimal():
        raise DataError(f"{image_id!r} is not a synthetic image: expected an id such as 'train/Corvella_alba/0007'")
    return split, name, int(number)


def _check(*, splits: Sequence[str], seed: int, image_size: int, counts: Mapping[str, int]) -> None:
    for split in splits:
        if split not in SPLITS:
            raise ArgumentError(f"unknown split {split!r}{suggest(split, SPLITS)}")
    if seed < 0:
        raise ArgumentError(f"seed={seed} must be 0 or more")
    if image_size < MIN_IMAGE_SIZE:
        raise ArgumentError(f"image_size={image_size} must be {MIN_IMAGE_SIZE} px or more: parts would not show")
    for split, count in counts.items():
        if count < 0:
            raise ArgumentError(f"images_per_class[{split!r}]={count} must be 0 or more")
