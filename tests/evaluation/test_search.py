import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from finevote.errors import ArgumentError, MissingExtraError
from finevote.evaluation import search
from finevote.evaluation.search import nearest, ranked_rows


def vectors(seed, num, dim=12):
    return np.random.default_rng(seed).normal(size=(num, dim)).astype(np.float32)


def naive(bank, queries, *, k, excluded=None):
    """Return rows by a loop over all pairs, of a tie the lower row first."""
    found = []
    for number, query in enumerate(queries):
        left_out = set() if excluded is None else set(excluded[number].tolist())
        pairs = [(float(np.sqrt(((row - query) ** 2).sum())), place) for place, row in enumerate(bank)]
        found.append([place for _, place in sorted(pairs) if place not in left_out][:k])
    return found


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_scikit_learn(metric):
    bank, queries = vectors(0, 300).astype(np.float16), vectors(1, 40)
    distances, rows = NearestNeighbors(n_neighbors=7, metric=metric, algorithm="brute").fit(bank).kneighbors(queries)
    found = nearest(bank, queries, k=7, metric=metric)
    assert np.array_equal(found.rows, rows)
    assert found.distances == pytest.approx(distances, abs=1e-5)


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_neighbours_are_those_of_a_loop_ties_included(num_bank, num_queries, k, seed):
    rng = np.random.default_rng(seed)
    bank, queries = (rng.integers(0, 3, (num, 2)).astype(np.float64) for num in (num_bank, num_queries))
    excluded = rng.integers(-1, num_bank, (num_queries, 2))
    expected = naive(bank, queries, k=k, excluded=excluded)
    found = nearest(bank, queries, k=k, excluded=excluded)
    assert [[row for row in rows if row >= 0] for rows in found.rows.tolist()] == expected
    ranked = np.concatenate([rows for _, rows in ranked_rows(bank, queries, excluded=excluded)])
    assert [[row for row in rows if row >= 0] for rows in ranked.tolist()] == naive(
        bank, queries, k=num_bank, excluded=excluded
    )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_faiss_finds_what_torch_finds(metric):
    bank, queries = vectors(0, 200), vectors(1, 20)
    bank[150:] = bank[:50]  # ties
    excluded = np.arange(20)[:, None]
    by_torch = nearest(bank, queries, k=5, metric=metric, excluded=excluded)
    by_faiss = nearest(bank, queries, k=5, metric=metric, excluded=excluded, most_by_torch=100)
    assert np.array_equal(by_faiss.rows, by_torch.rows)
    assert np.array_equal(by_faiss.distances, by_torch.distances)


def test_faiss_is_asked_beyond_the_limit_only(monkeypatch):
    monkeypatch.setattr(search, "_candidates_by_faiss", lambda *_, **__: pytest.fail("faiss was asked"))
    nearest(vectors(0, 100), vectors(1, 2), k=1, most_by_torch=100)
    with pytest.raises(pytest.fail.Exception, match="faiss was asked"):
        nearest(vectors(0, 101), vectors(1, 2), k=1, most_by_torch=100)


def test_without_faiss_the_command_to_install_it_is_told(monkeypatch):
    real = builtins.__import__

    def without_faiss(name, *arguments, **keywords):
        if name == "faiss":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_faiss)
    with pytest.raises(MissingExtraError, match=r"faiss is not installed: pip install 'finevote\[scale\]'"):
        nearest(vectors(0, 20), vectors(1, 2), k=1, most_by_torch=10)


@pytest.mark.parametrize("cells", [1, 50, 10_000])
def test_cutting_into_blocks_changes_nothing(monkeypatch, cells):
    bank, queries = vectors(0, 90), vectors(1, 30)
    whole, order = nearest(bank, queries, k=4), np.concatenate([rows for _, rows in ranked_rows(bank, queries)])
    monkeypatch.setattr(search, "_CELLS", cells)
    found = nearest(bank, queries, k=4)
    assert np.array_equal(found.rows, whole.rows)
    assert np.array_equal(found.distances, whole.distances)
    assert np.array_equal(np.concatenate([rows for _, rows in ranked_rows(bank, queries)]), order)


def test_no_matrix_is_larger_than_the_bound(monkeypatch):
    sizes = []
    monkeypatch.setattr(search, "_CELLS", 4_000)
    keys = search._keys
    monkeypatch.setattr(search, "_keys", lambda *given: sizes.append((found := keys(*given)).size) or found)
    nearest(vectors(0, 2_000), vectors(1, 100), k=3)
    list(ranked_rows(vectors(0, 2_000), vectors(1, 100)))
    assert sum(sizes) == 2 * 2_000 * 100
    assert max(sizes) <= 4_000


def test_an_equal_vector_is_at_distance_zero_however_long_it_is():
    bank = 1000 * vectors(0, 50)
    found = nearest(bank, bank, k=1)
    assert np.array_equal(found.rows[:, 0], np.arange(50))
    assert not found.distances.any()


def test_fewer_neighbours_than_asked_for_are_marked():
    found = nearest(vectors(0, 3), vectors(1, 1), k=3, excluded=np.array([[1]]))
    assert found.rows[0].tolist()[2] == -1
    assert np.isinf(found.distances[0, 2])
    assert set(found.rows[0, :2].tolist()) == {0, 2}


@pytest.mark.parametrize(
    ("bank", "queries", "k", "message"),
    [
        (vectors(0, 3), vectors(1, 1), 0, "k=0 must be 1 or more"),
        (vectors(0, 3), vectors(1, 1, dim=4), 1, r"a bank \(3, 12\) and queries \(1, 4\)"),
        (vectors(0, 0), vectors(1, 1), 1, r"a bank \(0, 12\)"),
        (np.full((2, 3), np.nan), vectors(1, 1, dim=3), 1, "not finite"),
        (vectors(0, 2, dim=3), np.full((1, 3), np.inf), 1, "not finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(bank, queries, k, message):
    with pytest.raises(ArgumentError, match=message):
        nearest(bank, queries, k=k)
