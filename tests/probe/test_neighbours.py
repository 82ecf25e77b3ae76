import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from finevote.errors import ArgumentError
from finevote.probe.neighbours import classify_by_neighbours, unit_parts


def make(*, num=60, num_queries=25, dim=6, num_classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    centres = generator.normal(size=(num_classes, dim))
    train = (centres[labels] + generator.normal(size=(num, dim))).astype(np.float32)
    queries = generator.normal(size=(num_queries, dim)).astype(np.float32)
    return unit_parts([train]), labels, unit_parts([queries])


def by_loops(train, labels, queries, *, k, num_classes, temperature):
    found = []
    for query in queries:
        similarities = [sum(float(a) * float(b) for a, b in zip(query, row, strict=True)) for row in train]
        nearest = sorted(range(len(train)), key=lambda row: -similarities[row])[:k]
        votes = [0.0] * num_classes
        for row in nearest:
            votes[labels[row]] += math.exp(similarities[row] / temperature)
        found.append(votes.index(max(votes)))
    return found


@given(seed=st.integers(0, 1000), k=st.integers(1, 80), temperature=st.sampled_from([0.05, 0.07, 1.0]))
def test_votes_are_those_of_a_naive_loop(seed, k, temperature):
    train, labels, queries = make(seed=seed, num=30, num_queries=5)
    options = {"num_classes": 4, "temperature": temperature}
    (found,) = classify_by_neighbours(train, labels, queries, num_neighbours=[k], **options)
    assert found.tolist() == by_loops(train, labels, queries, k=min(k, 30), **options)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_scikit_learn_with_the_same_weights_agrees(k):
    train, labels, queries = make(num=200, num_queries=150)
    oracle = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(train, labels)
    (found,) = classify_by_neighbours(train, labels, queries, num_neighbours=[k], num_classes=4)
    assert found.tolist() == oracle.predict(queries).tolist()


def test_each_number_of_neighbours_is_as_if_tried_alone():
    train, labels, queries = make(num_queries=1100)
    together = classify_by_neighbours(train, labels, queries, num_neighbours=(1, 7, 50), num_classes=4)
    alone = [classify_by_neighbours(train, labels, queries, num_neighbours=[k], num_classes=4)[0] for k in (1, 7, 50)]
    assert np.array_equal(together, alone)


def test_rows_of_several_parts_have_the_mean_of_their_cosines():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 5)), 1000 * generator.normal(size=(2, 3))
    rows = unit_parts([first.astype(np.float32), second.astype(np.float32)])
    cosines = [(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in (first, second)]
    assert rows[0] @ rows[1] == pytest.approx(np.mean(cosines), abs=1e-6)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1])


def test_without_queries_there_are_no_answers():
    train, labels, _ = make()
    none = np.zeros((0, 6), np.float32)
    assert classify_by_neighbours(train, labels, none, num_neighbours=(1, 2), num_classes=4).shape == (2, 0)


def test_without_training_images_it_is_refused():
    none = np.zeros((0, 6), np.float32)
    with pytest.raises(ArgumentError, match="5 of 0 neighbours: at least one"):
        classify_by_neighbours(none, np.zeros(0, np.int64), none, num_neighbours=[5], num_classes=4)
