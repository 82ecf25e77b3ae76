"""The same picture twice: equal files, equal pixels, and pictures that were resized, compressed or retouched."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from finevote.files import sha256_of
from finevote.types import Record

MAX_BITS = 12  # of 64; copies of drawn and of real pictures differ in up to 10 at a third of the size
MIN_CORRELATION = 0.88  # of 16 x 16 px colour thumbnails; copies have 0.90 and more, other pictures 0.84 and less
_COMPARED_SIDE = 16
_CHUNK_CELLS, _CHUNK_PAIRS = 4_000_000, 10_000  # of a comparison of all with all, of a comparison of pictures

Pairs = NDArray[np.int64]  # (num_pairs, 2), the first below the second


def equal_sets(keys: Iterable[Hashable | None]) -> list[list[int]]:
    """Return the rows of each key that comes more than once, in order; None is no key."""
    rows: dict[Hashable, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        if key is not None:
            rows[key].append(row)
    return [some for some in rows.values() if len(some) > 1]


def near_hashes(hashes: Sequence[int | None], *, max_bits: int = MAX_BITS) -> Pairs:
    """Return the pairs of 64-bit hashes that differ in at most `max_bits` bits; None is near to nothing.

    All are compared with all, block by block: the time grows with the square of their number, the memory does not.
    """
    rows = np.array([row for row, value in enumerate(hashes) if value is not None], np.int64)
    values = np.array([value for value in hashes if value is not None], np.uint64)
    blocks = [np.zeros((0, 2), np.int64)]
    for start, stop in _chunks(len(values)):
        differing = _count_bits(values[start:stop, None] ^ values[None, start:])
        blocks.append(_above_diagonal(differing <= max_bits, start))
    return rows[np.concatenate(blocks)]


def near_embeddings(embeddings: NDArray[np.float32], *, min_cosine: float) -> Pairs:
    """Return the pairs of rows (n, d) with at least this cosine, block by block as `near_hashes` does."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    directions = embeddings / np.maximum(lengths, np.finfo(np.float32).tiny)
    blocks = [np.zeros((0, 2), np.int64)]
    for start, stop in _chunks(len(directions)):
        blocks.append(_above_diagonal(directions[start:stop] @ directions[start:].T >= min_cosine, start))
    return np.concatenate(blocks)


def correlations(thumbnails: Sequence[NDArray[np.uint8]], pairs: Pairs) -> NDArray[np.float64]:
    """Return how alike the two pictures of each pair look, 1 for the same: the correlation of their small colours.

    A change of brightness or contrast does not count. Thumbnails are (64, 64, 3).
    """
    rows = np.unique(pairs)
    small = np.zeros((len(rows), _COMPARED_SIDE**2 * 3), np.float32)
    for place, row in enumerate(rows):
        small[place] = _shrink(thumbnails[row])
    places = np.searchsorted(rows, pairs)  # (num_pairs, 2)
    found = np.zeros(len(pairs))
    for start in range(0, len(pairs), _CHUNK_PAIRS):
        first, second = places[start : start + _CHUNK_PAIRS].T
        found[start : start + _CHUNK_PAIRS] = np.einsum("ij,ij->i", small[first], small[second])
    return found


def join(pairs: Pairs, *, num_rows: int) -> NDArray[np.int64]:
    """Return a number for each row, equal for rows that a chain of pairs connects."""
    ones = np.ones(len(pairs), bool)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(num_rows, num_rows))
    _, numbers = connected_components(graph, directed=False)
    return np.asarray(numbers, np.int64)


def same_files(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Return a pair for each record of `second` whose file is byte for byte one of `first`.

    Cheap: only files of equal size are read. Records without a file, and files that cannot be read, are passed over.
    """
    sizes: dict[int, list[Record]] = defaultdict(list)
    for record in first:
        size = _size(record)
        if size is not None:
            sizes[size].append(record)
    alike = [(record, sizes[size]) for record in second if (size := _size(record)) in sizes]
    hashes = {id(record): _hash(record) for record, others in alike for record in (record, *others)}
    pairs = []
    for record, others in alike:
        found = next((one for one in others if hashes[id(one)] == hashes[id(record)] is not None), None)
        if found is not None:
            pairs.append((found, record))
    return pairs


def _chunks(num_rows: int) -> Iterable[tuple[int, int]]:
    step = max(1, _CHUNK_CELLS // max(num_rows, 1))
    return ((start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def _above_diagonal(is_near: NDArray[np.bool_], start: int) -> Pairs:
    """Return the pairs of a block whose rows and columns both count from `start`, each pair once."""
    found = np.argwhere(is_near)
    return np.asarray(found[found[:, 1] > found[:, 0]] + start, np.int64)


def _count_bits(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Return how many bits are set in each value."""
    if hasattr(np, "bitwise_count"):
        return np.bitwise_count(values)
    as_bytes = values[..., None].view(np.uint8)  # NumPy 1
    return np.asarray(np.unpackbits(as_bytes, axis=-1).sum(axis=-1), np.uint8)


def _shrink(thumbnail: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return a picture's colours on 16 x 16 cells as one row, each channel around 0 and the whole of length 1."""
    cell = thumbnail.shape[0] // _COMPARED_SIDE
    cells = thumbnail.reshape(_COMPARED_SIDE, cell, _COMPARED_SIDE, cell, 3).mean(axis=(1, 3))
    centred = cells - cells.mean(axis=(0, 1))
    return np.asarray(centred.ravel() / max(float(np.linalg.norm(centred)), 1e-9))


def _size(record: Record) -> int | None:
    try:
        return None if record.path is None else record.path.stat().st_size
    except OSError:
        return None


def _hash(record: Record) -> str | None:
    try:
        return None if record.path is None else sha256_of(record.path)
    except OSError:
        return None
