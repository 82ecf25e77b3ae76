"""Which images are worth showing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.evaluation.metrics import Rates
from finevote.types import Predictions

Rows = list[int]


class Chosen(NamedTuple):
    """Rows of images: named right with the most confidence, wrong with the most, and with the closest second class."""

    best: Rows
    worst: Rows
    doubtful: Rows


class Mistake(NamedTuple):
    """One image of class `true` taken for class `predicted`, and another image of either class.

    These are the nearest by embedding, or the surest where there are no embeddings, of those that are named right; of
    all others where none is; None where a class has no other.
    """

    true: int
    predicted: int
    row: int
    of_predicted: int | None
    of_true: int | None


def choose(probabilities: Rates, labels: NDArray[np.int64], *, limit: int, but: Collection[int] = ()) -> Chosen:
    """Return up to `limit` rows of each kind, none twice and none of `but`; of the best, one of each class first.

    Args:
        probabilities: (n, C).
        labels: (n,), the true classes.
        limit: how many of each.
        but: rows that are shown elsewhere.
    """
    ranked = np.sort(probabilities, axis=1)
    sure, lead = ranked[:, -1], ranked[:, -1] - ranked[:, -2]
    said = probabilities.argmax(axis=1)
    by_sureness = np.argsort(-sure, kind="stable")
    right, wrong = (by_sureness[(said == labels)[by_sureness] == wanted] for wanted in (True, False))
    taken = set(but)
    worst = _take(wrong.tolist(), taken, limit)
    doubtful = _take(np.argsort(lead, kind="stable").tolist(), taken, limit)
    first_of_class = right[np.sort(np.unique(labels[right], return_index=True)[1])].tolist()
    best = _take([*first_of_class, *right.tolist()], taken, limit)
    return Chosen(best, worst, doubtful)


def choose_mistakes(
    predictions: Predictions, pairs: Iterable[tuple[int, int]], probabilities: Rates, *, limit: int
) -> list[Mistake]:
    """Return for each pair of a true and a predicted class the surest such mistake, and images to compare it with.

    Pairs come as they are given; of (a, b) and (b, a) the first is taken. No image comes twice where another will do.
    """
    said = probabilities.argmax(axis=1)
    found: list[Mistake] = []
    taken: set[int] = set()
    for true, predicted in pairs:
        if len(found) == limit or any({true, predicted} == {one.true, one.predicted} for one in found):
            continue
        rows = np.flatnonzero((predictions.labels == true) & (said == predicted))
        if not len(rows):
            continue
        row = int(rows[probabilities[rows, predicted].argmax()])
        taken.add(row)
        others = [
            _companion(predictions, probabilities, label=label, row=row, taken=taken) for label in (predicted, true)
        ]
        found.append(Mistake(true, predicted, row, *others))
    return found


def _companion(predictions: Predictions, probabilities: Rates, *, label: int, row: int, taken: set[int]) -> int | None:
    """Return the image of a class that is most like the one in `row`; it is taken then."""
    said, of_class = probabilities.argmax(axis=1), predictions.labels == label
    of_class[row] = False
    rows = np.flatnonzero(of_class & (said == label))
    rows = rows if len(rows) else np.flatnonzero(of_class)
    if not len(rows):
        return None
    embeddings = predictions.embeddings
    if embeddings is None:
        likeness = probabilities[rows, label]
    else:
        unit = embeddings[[row, *rows]].astype(np.float64)
        unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
        likeness = unit[1:] @ unit[0]
    order = rows[np.argsort(-likeness, kind="stable")].tolist()
    chosen = next((other for other in order if other not in taken), order[0])
    taken.add(chosen)
    return int(chosen)


def _take(rows: Sequence[int], taken: set[int], limit: int) -> Rows:
    chosen: Rows = []
    for row in rows:
        if len(chosen) == limit:
            break
        if row not in taken:
            taken.add(row)
            chosen.append(int(row))
    return chosen
