"""From fingerprints and records to findings: copies, leaks, odd images, sizes of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from finevote.audit.findings import Finding, ImageRef, tags_of
from finevote.data.duplicates import (
    MIN_CORRELATION,
    Pairs,
    correlations,
    equal_sets,
    join,
    near_embeddings,
    near_hashes,
)
from finevote.data.fingerprints import Fingerprint, Fingerprints
from finevote.data.items import list_some
from finevote.evaluation.label_errors import LabelError

FEW_IMAGES = 5  # of a class in train
LARGEST_RATIO = 10.0  # of the largest class in train to the smallest
MIN_COSINE = 0.95  # of backbone embeddings; a guess that is not tuned


def find_unreadable(refs: Sequence[ImageRef], unreadable: dict[int, str]) -> list[Finding]:
    """Return a finding for each image that cannot be read."""
    return [Finding("unreadable", (refs[row],), reason) for row, reason in unreadable.items()]


def find_odd(refs: Sequence[ImageRef], prints: Sequence[Fingerprint]) -> list[Finding]:
    """Return a finding for each oddity of each image; `refs` are those of the fingerprints."""
    return [
        Finding(oddity.kind, (ref,), oddity.detail)
        for ref, found in zip(refs, prints, strict=True)
        for oddity in found.oddities
    ]


def find_copies(refs: Sequence[ImageRef], prints: Sequence[Fingerprint]) -> tuple[list[Finding], NDArray[np.int64]]:
    """Return the sets of copies, and a number for each image that all copies of a picture share.

    A picture with equal and with near copies is told twice: its equal files as `same_file`, and all of its copies as
    `near_duplicate`.
    """
    files = equal_sets(one.file_sha256 for one in prints)
    pixels = equal_sets(one.pixels_hash for one in prints)
    found = [_copies("same_file", rows, refs, detail="") for rows in files]
    found += [
        _copies("same_pixels", rows, refs, detail="")
        for rows in pixels
        if len({prints[row].file_sha256 or row for row in rows}) > 1
    ]
    equal = np.array([(rows[0], row) for rows in (*files, *pixels) for row in rows[1:]], np.int64).reshape(-1, 2)
    near, likeness = _near_pairs(prints, equal)
    numbers = join(np.concatenate([equal, near]), num_rows=len(prints))
    worst: dict[int, float] = {}
    for (row, _), alike in zip(near, likeness, strict=True):
        worst[numbers[row]] = min(float(alike), worst.get(numbers[row], 1.0))
    members: dict[int, list[int]] = {number: [] for number in worst}
    for row, number in enumerate(numbers.tolist()):
        if number in members:
            members[number].append(row)
    found += [
        _copies("near_duplicate", rows, refs, detail=f"correlation {worst[number]:.2f}", score=worst[number])
        for number, rows in members.items()
    ]
    return found, numbers


def find_similar(
    refs: Sequence[ImageRef], embeddings: NDArray[np.float32], numbers: NDArray[np.int64]
) -> list[Finding]:
    """Return the pairs that a backbone hardly tells apart and that are no copies by `numbers` already."""
    pairs = near_embeddings(embeddings, min_cosine=MIN_COSINE)
    pairs = pairs[numbers[pairs[:, 0]] != numbers[pairs[:, 1]]]
    directions = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    cosines = np.einsum("ij,ij->i", directions[pairs[:, 0]], directions[pairs[:, 1]])
    return [
        _copies("similar_embedding", pair.tolist(), refs, detail=f"cosine {cosine:.3f}", score=float(cosine))
        for pair, cosine in zip(pairs, cosines, strict=True)
    ]


def find_split_groups(refs: Sequence[ImageRef]) -> list[Finding]:
    """Return a finding for each group that is in more than one split."""
    groups = equal_sets(ref.group for ref in refs)
    return [
        Finding(
            "group_in_two_splits",
            tuple(refs[row] for row in rows),
            f"group {refs[rows[0]].group}: " + _count(refs[row].split for row in rows),
        )
        for rows in groups
        if len({refs[row].split for row in rows}) > 1
    ]


def find_uneven(refs: Sequence[ImageRef], class_names: Sequence[str]) -> list[Finding]:
    """Return what is wrong with the number of images of each class in each split."""
    counts = {split: Counter[str]() for split in dict.fromkeys(ref.split for ref in refs)}
    for ref in refs:
        counts[ref.split][ref.class_name] += 1
    found = []
    for split, sizes in counts.items():
        empty = [name for name in class_names if not sizes[name]]
        if empty:
            found.append(Finding("empty_class", detail=f"{split}: {list_some(empty, noun='class')}", classes=(*empty,)))
    train = {name: counts.get("train", Counter())[name] for name in class_names}
    found += [
        Finding("small_class", detail=f"{name}: {size} in train", classes=(name,))
        for name, size in train.items()
        if 0 < size < FEW_IMAGES
    ]
    largest, smallest = max(train, key=train.__getitem__), min(train, key=train.__getitem__)
    if train[largest] > LARGEST_RATIO * train[smallest]:
        detail = f"{largest} has {train[largest]:,} images in train, {smallest} {train[smallest]:,}"
        ratio = train[largest] / max(train[smallest], 1)
        found.append(Finding("imbalance", detail=detail, classes=(largest, smallest), score=ratio))
    return found


def describe_label_errors(
    errors: Sequence[LabelError], refs: Sequence[ImageRef], class_names: Sequence[str]
) -> list[Finding]:
    """Return a finding for each label that is likely wrong, the surest first."""
    return [
        Finding(
            "label_error",
            (refs[error.row],),
            f"labelled {refs[error.row].class_name} ({error.own_probability:.0%}), "
            f"looks like {class_names[error.suggested]} ({error.probability:.0%})",
            score=error.score,
            classes=(class_names[error.suggested],),
        )
        for error in errors
    ]


def units_of(refs: Sequence[ImageRef], numbers: NDArray[np.int64]) -> list[int]:
    """Return a number for each image, equal where images are copies of each other or of one group."""
    groups = equal_sets(ref.group for ref in refs)
    copies = equal_sets(numbers.tolist())
    pairs = np.array([(rows[0], row) for rows in (*groups, *copies) for row in rows[1:]], np.int64).reshape(-1, 2)
    return [int(number) for number in join(pairs, num_rows=len(refs))]


def refs_of(taken: Fingerprints, refs: Sequence[ImageRef]) -> list[ImageRef]:
    """Return those of the images that could be read."""
    return [refs[row] for row in taken.rows]


def _near_pairs(prints: Sequence[Fingerprint], equal: Pairs) -> tuple[Pairs, NDArray[np.float64]]:
    """Return the pairs that look alike, and how much; of equal images only the first is compared."""
    hashes = [one.perceptual_hash for one in prints]
    for row in equal[:, 1]:
        hashes[row] = None
    pairs = near_hashes(hashes)
    likeness = correlations([one.thumbnail for one in prints], pairs)
    return pairs[likeness >= MIN_CORRELATION], likeness[likeness >= MIN_CORRELATION]


def _copies(
    kind: str, rows: Sequence[int], refs: Sequence[ImageRef], *, detail: str, score: float | None = None
) -> Finding:
    images = tuple(refs[row] for row in rows)
    classes = tuple(dict.fromkeys(image.class_name for image in images))
    return Finding(kind, images, detail, score, classes, tags_of(images))


def _count(values: Iterable[str]) -> str:
    return ", ".join(f"{count} {value}" for value, count in Counter(values).items())
