import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.data import duplicates
from finevote.data.duplicates import correlations, equal_sets, join, near_embeddings, near_hashes, same_files
from finevote.types import Record

HASHES = st.lists(st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 255), max_size=30)


def naive_near(hashes, max_bits):
    rows = range(len(hashes))
    return [
        (i, j)
        for i in rows
        for j in rows
        if i < j and None not in (hashes[i], hashes[j]) and (hashes[i] ^ hashes[j]).bit_count() <= max_bits
    ]


@given(HASHES, st.integers(0, 64))
def test_near_hashes_are_those_of_a_loop_over_all_pairs(hashes, max_bits):
    assert list(map(tuple, near_hashes(hashes, max_bits=max_bits).tolist())) == naive_near(hashes, max_bits)


def test_blocks_give_what_one_comparison_gives(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**12, 200).tolist()
    whole = near_hashes(hashes, max_bits=2)
    monkeypatch.setattr(duplicates, "_CHUNK_CELLS", 1000)
    assert len(whole) > 100
    assert set(map(tuple, near_hashes(hashes, max_bits=2).tolist())) == set(map(tuple, whole.tolist()))


def test_bits_are_counted_alike_without_numpy_2(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**63, 40).tolist()
    new = near_hashes(hashes, max_bits=28)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert near_hashes(hashes, max_bits=28).tolist() == new.tolist()


def test_near_embeddings_are_those_of_the_cosine_matrix():
    embeddings = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    expected = np.argwhere(np.triu(directions @ directions.T, 1) >= 0.9)
    assert near_embeddings(embeddings, min_cosine=0.9).tolist() == expected.tolist()


def test_equal_keys_come_together_and_none_is_no_key():
    assert equal_sets(["a", None, "b", "a", None, "a"]) == [[0, 3, 5]]


def test_chains_of_pairs_are_joined():
    numbers = join(np.array([[0, 2], [2, 4], [1, 5]]), num_rows=6).tolist()
    assert numbers[0] == numbers[2] == numbers[4]
    assert numbers[1] == numbers[5]
    assert len(set(numbers)) == 3


def test_brightness_and_contrast_do_not_count_in_the_likeness_of_pictures():
    first = np.random.default_rng(0).integers(60, 200, (64, 64, 3)).astype(np.uint8)
    darker = (first * 0.7 + 10).astype(np.uint8)
    other = np.random.default_rng(1).integers(60, 200, (64, 64, 3)).astype(np.uint8)
    alike, unlike = correlations([first, darker, other], np.array([[0, 1], [0, 2]]))
    assert alike == pytest.approx(1.0, abs=0.01)
    assert abs(unlike) < 0.3


def test_no_pairs_have_no_likeness():
    assert correlations([], np.zeros((0, 2), np.int64)).shape == (0,)


def test_the_same_files_are_found_and_files_of_other_sizes_are_not_read(tmp_path, monkeypatch):
    def record(name, content):
        (tmp_path / name).write_bytes(content)
        return Record(name, 0, tmp_path / name)

    first = [record("a", b"one"), record("b", b"two"), Record("drawn", 0)]
    second = [record("c", b"two"), record("d", b"six"), record("e", b"longer"), Record("gone", 0, tmp_path / "gone")]
    read = []
    hash_file = duplicates.sha256_of
    monkeypatch.setattr(duplicates, "sha256_of", lambda path: read.append(path.name) or hash_file(path))
    assert [(one.image_id, again.image_id) for one, again in same_files(first, second)] == [("b", "c")]
    assert "e" not in read
