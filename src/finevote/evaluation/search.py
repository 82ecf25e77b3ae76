"""Exact nearest neighbours in a bounded memory: blocks of distances by torch, beyond a million vectors by faiss.

Distances are computed in double precision and compared in single, so that equal vectors tie; of a tie the lower row
comes first.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from finevote.errors import ArgumentError, MissingExtraError
from finevote.evaluation.nearness import Metric

Vectors = NDArray[np.floating[Any]]
Rows = NDArray[np.int64]

MOST_BY_TORCH = 1_000_000
_CELLS = 2**23  # numbers of a block of vectors, or of distances, at once: 64 MiB in double precision
_ROW_BITS = 32
_LEFT_OUT = np.iinfo(np.int64).max  # the key of what must not be found
_SPARE = 16  # neighbours more than are wanted, of which the nearest are told in double precision


class Neighbours(NamedTuple):
    """The k nearest of each query: rows (m, k), -1 where there are fewer, and distances (m, k), infinite there."""

    rows: Rows
    distances: NDArray[np.float64]


def nearest(
    bank: Vectors,
    queries: Vectors,
    *,
    k: int,
    metric: Metric = "euclidean",
    excluded: Rows | None = None,
    most_by_torch: int = MOST_BY_TORCH,
) -> Neighbours:
    """Return the k nearest vectors of a bank to each query, nearest first, of a tie the lower row first.

    Args:
        bank: (n, D).
        queries: (m, D).
        k: how many; fewer where there are not so many.
        metric: "euclidean", or "cosine" for 1 minus the cosine.
        excluded: (m, e) rows of the bank that a query must not find, -1 for none.
        most_by_torch: of a larger bank faiss finds the candidates, in single precision.

    Raises:
        ArgumentError: k is below 1, or vectors do not fit together or are not finite.
        MissingExtraError: faiss is needed and not installed.
    """
    if k < 1:
        raise ArgumentError(f"k={k} must be 1 or more: how many neighbours to find")
    _check(bank, queries)
    left_out = np.full((len(queries), 0), -1, np.int64) if excluded is None else excluded
    wanted = min(k, len(bank))
    if len(bank) > most_by_torch:
        candidates = _candidates_by_faiss(bank, queries, k=wanted + left_out.shape[1] + _SPARE, metric=metric)
    else:
        candidates = _candidates_by_torch(bank, queries, k=wanted, metric=metric, excluded=left_out)
    return _settle(bank, queries, candidates, k=wanted, metric=metric, excluded=left_out)


def ranked_rows(
    bank: Vectors, queries: Vectors, *, metric: Metric = "euclidean", excluded: Rows | None = None
) -> Iterator[tuple[slice, Rows]]:
    """Yield for some queries at a time all rows of the bank (q, n) in the order of `nearest`; what is left out is -1.

    Takes and raises what `nearest` does.
    """
    _check(bank, queries)
    step = max(1, _CELLS // max(len(bank), 1))
    for start in range(0, len(queries), step):
        some = slice(start, start + step)
        asked = _doubles(queries[some], metric)
        left_out = None if excluded is None else excluded[some]
        keys = np.concatenate([_keys(asked, block, first, left_out) for first, block in _blocks(bank, metric)], axis=1)
        keys.sort(axis=1)
        yield some, _rows_of(keys)


def _check(bank: Vectors, queries: Vectors) -> None:
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1] or not len(bank):
        raise ArgumentError(
            f"got a bank {bank.shape} and queries {queries.shape}: give (n, D) and (m, D) of the same D, with n >= 1"
        )


def _candidates_by_torch(bank: Vectors, queries: Vectors, *, k: int, metric: Metric, excluded: Rows) -> Rows:
    """Return the rows (m, k) of the nearest, -1 where there are fewer."""
    best = np.full((len(queries), k), _LEFT_OUT)
    for first, block in _blocks(bank, metric):
        step = max(1, _CELLS // len(block))
        for start in range(0, len(queries), step):
            some = slice(start, start + step)
            keys = _keys(_doubles(queries[some], metric), block, first, excluded[some])
            best[some] = np.partition(np.concatenate([best[some], keys], axis=1), k - 1, axis=1)[:, :k]
    return _rows_of(best)


def _candidates_by_faiss(bank: Vectors, queries: Vectors, *, k: int, metric: Metric) -> Rows:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("faiss", "scale") from None
    index = faiss.IndexFlatL2(bank.shape[1])
    for _, block in _blocks(bank, metric):
        index.add(block.float().numpy())
    _, rows = index.search(_doubles(queries, metric).float().numpy(), min(k, len(bank)))
    return np.asarray(rows, np.int64)


def _settle(bank: Vectors, queries: Vectors, candidates: Rows, *, k: int, metric: Metric, excluded: Rows) -> Neighbours:
    """Return the k nearest of the candidates (m, c) by the differences themselves, which are 0 for equal vectors."""
    num_candidates = candidates.shape[1]
    rows, squares = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf)
    step = max(1, _CELLS // (num_candidates * bank.shape[1]))
    for start in range(0, len(queries), step):
        some = slice(start, start + step)
        found = candidates[some]
        is_out = (found < 0) | (found[:, :, None] == excluded[some, None, :]).any(axis=2)
        near = _doubles(bank[found.ravel()], metric).view(*found.shape, -1)  # (q, c, D)
        exact = (near - _doubles(queries[some], metric)[:, None]).square().sum(dim=2).numpy()  # (q, c)
        exact[is_out] = np.inf
        order = np.lexsort((found, exact.astype(np.float32)), axis=1)[:, :k]
        squares[some] = np.take_along_axis(exact, order, axis=1)
        rows[some] = np.where(np.isinf(squares[some]), -1, np.take_along_axis(found, order, axis=1))
    return Neighbours(rows, squares / 2 if metric == "cosine" else np.sqrt(squares))


def _blocks(bank: Vectors, metric: Metric) -> Iterator[tuple[int, Tensor]]:
    """Yield the bank in blocks (b, D) in double precision, each with the number of its first row."""
    step = max(1, _CELLS // max(bank.shape[1], 1))
    for first in range(0, len(bank), step):
        yield first, _doubles(bank[first : first + step], metric)


def _doubles(vectors: Vectors, metric: Metric) -> Tensor:
    """Return vectors whose Euclidean distance stands for the metric; |a - b|^2 = 2 (1 - cosine) of unit vectors."""
    if not np.isfinite(vectors).all():
        raise ArgumentError("some vectors are not finite, so nothing is nearest to them")
    found = torch.from_numpy(np.asarray(vectors, np.float64))
    return F.normalize(found, dim=1) if metric == "cosine" else found


def _keys(queries: Tensor, block: Tensor, first: int, excluded: Rows | None) -> Rows:
    """Return whole numbers (q, b) in the order of distance, then row: the bits of the squared distance, then the row.

    The bits of floats that are not negative are in the order of these.
    """
    asked, there = (torch.linalg.vector_norm(some, dim=1).square() for some in (queries, block))
    squares = torch.addmm(there, queries, block.mT, alpha=-2).add_(asked[:, None]).clamp_(min=0)  # (q, b)
    bits = squares.float().numpy().view(np.int32) & np.int32(0x7FFFFFFF)  # 0 has two signs
    keys = (bits.astype(np.int64) << _ROW_BITS) | np.arange(first, first + len(block))
    if excluded is not None:
        places = excluded - first
        is_here = (places >= 0) & (places < len(block))
        keys[np.nonzero(is_here)[0], places[is_here]] = _LEFT_OUT
    return keys


def _rows_of(keys: Rows) -> Rows:
    """Return the rows that keys end with, -1 for what is left out."""
    return np.where(keys == _LEFT_OUT, -1, keys & (2**_ROW_BITS - 1))
