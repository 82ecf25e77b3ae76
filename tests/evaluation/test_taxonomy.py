import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.evaluation.metrics import softmax
from finevote.evaluation.taxonomy import deepest_sure, levels_of
from finevote.types import Taxonomy

TREE = Taxonomy(
    ("species", "genus", "family"),
    (("a", "A", "F"), ("b", "B", "F"), ("c", "A", "F"), ("d", "C", "G")),
)


def draw(num_images=50, *, seed=0):
    return softmax(np.random.default_rng(seed).normal(0, 2, (num_images, 4)))


def test_probabilities_are_summed_as_in_a_loop():
    probabilities = draw()
    for depth, level in enumerate(levels_of(TREE)):
        found = level.probabilities(probabilities)
        for row, of_classes in enumerate(probabilities):
            for number, taxon in enumerate(level.taxa):
                own = [p for p, names in zip(of_classes, TREE.lineages, strict=True) if names[depth] == taxon]
                assert found[row, number] == pytest.approx(sum(own))


def test_taxa_of_many_classes_take_little_memory():
    names = [f"species {number}" for number in range(4000)]
    levels = levels_of(Taxonomy(("species", "genus"), tuple((name, name[:-1]) for name in names)))
    probabilities = np.full((3, 4000), 1 / 4000)
    tracemalloc.start()
    found = [level.probabilities(probabilities) for level in levels]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[0] == pytest.approx(probabilities)
    assert found[1].sum(axis=1) == pytest.approx(1)
    assert peak < 1e6  # a table of classes by taxa would be 128 MB


def test_an_image_is_right_where_the_likeliest_taxon_is_its_own():
    species, genus, family = levels_of(TREE)
    probabilities = np.array([[0.3, 0.4, 0.3, 0.0], [0.1, 0.2, 0.3, 0.4]])
    labels = np.array([0, 3])
    assert species.is_right(probabilities, labels).tolist() == [False, True]
    assert genus.is_right(probabilities, labels).tolist() == [True, False]  # A has 0.6, then A and C 0.4, A first
    assert family.is_right(probabilities, labels).tolist() == [True, False]


@given(st.integers(0, 1000), st.floats(0.01, 0.99))
def test_the_answer_is_the_deepest_level_that_is_sure(seed, sure):
    levels, probabilities = levels_of(TREE), draw(20, seed=seed)
    for row, (depth, taxon) in enumerate(zip(*deepest_sure(probabilities, levels, sure=sure), strict=True)):
        most = [level.probabilities(probabilities[row : row + 1]).max() for level in levels]
        reached = [number for number, value in enumerate(most) if value >= sure]
        assert depth == (reached[0] if reached else -1)
        if reached:
            assert levels[depth].probabilities(probabilities)[row, taxon] == most[depth]
        else:
            assert taxon == -1


def test_a_lower_level_is_never_surer_than_the_one_above():
    probabilities = draw()
    most = [level.probabilities(probabilities).max(axis=1) for level in levels_of(TREE)]
    assert all((below <= above + 1e-12).all() for below, above in pairwise(most))
