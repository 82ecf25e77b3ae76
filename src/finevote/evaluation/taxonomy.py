"""Probabilities summed up a taxonomy: how sure one is of the genus where the species is open. Pure NumPy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.evaluation.metrics import Labels, Rates
from finevote.types import Taxonomy

NOWHERE = -1


class Level(NamedTuple):
    """One level: its name, its taxa, and which of these each class is in, (C,)."""

    name: str
    taxa: tuple[str, ...]
    members: NDArray[np.int64]

    def probabilities(self, of_classes: Rates) -> Rates:
        """Return the probabilities of the taxa, (n, K), from those of the classes, (n, C)."""
        order = np.argsort(self.members, kind="stable")
        starts = np.searchsorted(self.members[order], np.arange(len(self.taxa)))  # of each taxon's classes
        return np.asarray(np.add.reduceat(of_classes[:, order], starts, axis=1))

    def is_right(self, of_classes: Rates, labels: Labels) -> NDArray[np.bool_]:
        """Return whether the likeliest taxon is that of each image's class, (n,)."""
        return np.asarray(self.probabilities(of_classes).argmax(axis=1) == self.members[labels])


def levels_of(taxonomy: Taxonomy) -> tuple[Level, ...]:
    """Return the levels, that of the classes first; taxa are in the order of their first class."""
    levels = []
    for name, names in zip(taxonomy.levels, zip(*taxonomy.lineages, strict=True), strict=True):
        numbers = {taxon: number for number, taxon in enumerate(dict.fromkeys(names))}
        levels.append(Level(name, tuple(numbers), np.array([numbers[taxon] for taxon in names], np.int64)))
    return tuple(levels)


def deepest_sure(of_classes: Rates, levels: Sequence[Level], *, sure: float) -> tuple[NDArray[np.int64], Labels]:
    """Return the first level whose likeliest taxon has a probability of at least `sure`, (n,), and that taxon, (n,).

    Both are -1 where none has.
    """
    depths = np.full(len(of_classes), NOWHERE)
    taxa = np.full(len(of_classes), NOWHERE)
    for depth in reversed(range(len(levels))):
        probabilities = levels[depth].probabilities(of_classes)
        reached = probabilities.max(axis=1) >= sure
        depths[reached] = depth
        taxa[reached] = probabilities.argmax(axis=1)[reached]
    return depths, taxa
