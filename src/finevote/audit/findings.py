"""What an audit found, as values and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finevote.data.oddities import KINDS as ODDITIES
from finevote.errors import ArgumentError
from finevote.evaluation.label_errors import Judgement

FORMAT = 1
KINDS: Mapping[str, str] = {
    "unreadable": "cannot be read",
    "same_file": "the same file, byte for byte",
    "same_pixels": "the same pixels in another file",
    "near_duplicate": "the same picture resized, compressed or retouched, or taken a moment later",
    "similar_embedding": "nearly the same to the backbone",
    "group_in_two_splits": "a group in more than one split",
    "label_error": "a label in doubt: it looks like another class",
    "empty_class": "a class without images in a split",
    "small_class": "a class with very few training images",
    "imbalance": "classes of very unequal size",
    **ODDITIES,
}
DUPLICATES = ("same_file", "same_pixels", "near_duplicate", "similar_embedding")
ACROSS_SPLITS, ACROSS_GROUPS, MIXED_LABELS = "across_splits", "across_groups", "mixed_labels"


@dataclass(frozen=True)
class ImageRef:
    """An image by its id, with its split, class and group."""

    id: str
    split: str
    class_name: str
    group: str | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    `images` are those it concerns (all copies of a picture, all images of a group); `classes` the classes: those of the
    images, or for a `label_error` the one that is suggested. `score` ranks findings of a kind, the surest first: the
    lead of the suggested class, the likeness of the least alike copies. `tags` say of copies whether they lie in two
    splits or groups or have two labels.
    """

    kind: str
    images: tuple[ImageRef, ...] = ()
    detail: str = ""
    score: float | None = None
    classes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(f"unknown kind of finding {self.kind!r}; allowed: {', '.join(KINDS)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the finding ready for JSON."""
        return {
            "kind": self.kind,
            "images": [
                {"id": image.id, "split": image.split, "class": image.class_name, "group": image.group}
                for image in self.images
            ],
            "classes": list(self.classes),
            "tags": list(self.tags),
            "score": None if self.score is None else round(self.score, 4),
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Audit:
    """All findings about a data set.

    `data` opens the set, `num_images` counts its images by split, `num_leaked` those of a split that have a copy in
    another, as {"test": {"train": 3}}. `judgement` is of the labels, made from `features`. Every split was opened, the
    test split too; no figure was measured on it.
    """

    data: str
    num_images: Mapping[str, int]
    num_classes: int
    findings: tuple[Finding, ...]
    features: str
    judgement: Judgement
    num_leaked: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def to_dict(self) -> dict[str, Any]:
        """Return the audit ready for JSON, as docs/data.md describes it."""
        return {
            "format": FORMAT,
            "data": self.data,
            "splits_opened": list(self.num_images),
            "num_images": dict(self.num_images),
            "num_classes": self.num_classes,
            "counts": {kind: len(self.of_kind(kind)) for kind in KINDS},
            "num_leaked": {split: dict(counts) for split, counts in self.num_leaked.items()},
            "probe": {
                "features": self.features,
                "agreement": self.judgement.agreement,
                "trial_num_flipped": self.judgement.num_flipped,
                "trial_recall": self.judgement.recall,
                "trial_precision": self.judgement.precision,
            },
            "notes": list(self.notes),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def tags_of(images: Sequence[ImageRef]) -> tuple[str, ...]:
    """Return what is wrong with these images being one picture."""
    differing = {
        ACROSS_SPLITS: {image.split for image in images},
        ACROSS_GROUPS: {image.group for image in images if image.group is not None},
        MIXED_LABELS: {image.class_name for image in images},
    }
    return tuple(tag for tag, values in differing.items() if len(values) > 1)


def count_leaked(findings: Iterable[Finding]) -> dict[str, dict[str, int]]:
    """Return how many images of each split have a copy in each other split; `similar_embedding` is no copy."""
    leaked: dict[tuple[str, str], set[str]] = {}
    for finding in findings:
        if finding.kind not in DUPLICATES or finding.kind == "similar_embedding":
            continue
        splits = {image.split for image in finding.images}
        for image in finding.images:
            for other in splits - {image.split}:
                leaked.setdefault((image.split, other), set()).add(image.id)
    counts: dict[str, dict[str, int]] = {}
    for (split, other), ids in sorted(leaked.items()):
        counts.setdefault(split, {})[other] = len(ids)
    return counts
