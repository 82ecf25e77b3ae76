"""The values that are handed from stage to stage, and THE shape legend.

Shapes: B images, L transformer blocks, H heads, P patch tokens (rows x columns of the grid, which can be
rectangular), N = prefix + P tokens (prefix = CLS and register tokens), D width, C classes, T selected tokens in
all, K key tokens, S trunk layers that vote (S = L - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor


PLAIN = "plain"  # the view of an image that everything is told of: its centre


@dataclass(frozen=True, slots=True)
class Box:
    """A named rectangle, its sides as fractions of the image's width and height in [0, 1]."""

    name: str
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Regions:
    """What is known of where things are in an image, in fractions of the image as it is read.

    `subject` is the box around what is to be named, None where it is not known; `parts` are boxes of its visible parts.
    """

    subject: Box | None = None
    parts: tuple[Box, ...] = ()

    def boxes(self) -> tuple[Box, ...]:
        """Return all boxes, the subject's first."""
        return self.parts if self.subject is None else (self.subject, *self.parts)


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled image, not yet read.

    `image_id` is unique in its data set and stable between machines (a path relative to the root, or a name).
    `path` is None for images that are no file of their own; `cell` then names where in a table the image lies, as
    table identity, slash and row, and is None for images that are drawn in code. `group` ties photographs of one
    subject together. `banner_px` rows at the bottom of the upright image are no part of the photograph.
    """

    image_id: str
    label: int
    path: Path | None = None
    group: str | None = None
    cell: str | None = None
    banner_px: int = 0


@dataclass(frozen=True)
class Taxonomy:
    """Classes as the leaves of a tree.

    `levels` are called from the class upwards, such as ("species", "genus"); `lineages` has for each class, in the
    order of the logits, its name at each of them.
    """

    levels: tuple[str, ...]
    lineages: tuple[tuple[str, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {"levels": list(self.levels), "lineages": [list(names) for names in self.lineages]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` gave."""
        return cls(tuple(values["levels"]), tuple(tuple(names) for names in values["lineages"]))


@dataclass(frozen=True)
class DataSource:
    """A data set: class names, the records of the splits that were asked for, and how to read one image.

    `splits` maps "train", "val", "test" to records; a split that was not asked for is absent. `read` returns an RGB
    image, EXIF rotation applied, and raises DataError for an unreadable one. `name` says where it came from.

    `argument` opens exactly this set again, from anywhere; None where what it was opened with does.

    `locate` gives the boxes of an image when they are wanted; None where the set has none. `protocol` names the way the
    images are divided where a published set knows several. Both functions can be pickled. `taxonomy` is that of the
    classes, None where it is not known.
    """

    name: str
    class_names: tuple[str, ...]
    splits: Mapping[str, tuple[Record, ...]]
    read: Callable[[Record], Image.Image]
    notes: tuple[str, ...] = ()
    locate: Callable[[Record], Regions] | None = None
    protocol: str | None = None
    argument: str | None = None
    taxonomy: Taxonomy | None = None

    def regions(self, record: Record) -> Regions:
        """Return what is known of where things are in an image; nothing where the set has no boxes."""
        return Regions() if self.locate is None else self.locate(record)


class Batch(NamedTuple):
    """images (B, 3, height, width) float, normalised; labels (B,) int64; indices (B,) int64 into the records.

    With mixup or CutMix `targets` (B, C) holds the soft labels; otherwise it is None.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None


class LayerVote(NamedTuple):
    """How the heads of one trunk layer voted, and which k patches it forwards, best first.

    The layer reads n patches: all P of the grid, or those that are left. Nobody votes for one that is not there.
    """

    ballots: Tensor  # (B, P) float32, counts of votes
    enhanced: Tensor  # (B, P) float32, ballots after smoothing
    selected: Tensor  # (B, k) int64, patch numbers
    scores: Tensor  # (B, n) float32, the enhanced ballots of the patches that the layer reads
    ranking: Tensor  # (B, n) int64, places among these, best first; the first k are the selected
    head_votes: Tensor | None = None  # (B, H, P) bool, who voted for what; None unless it was asked for


class Forwarded(NamedTuple):
    """What one trunk layer forwards: its vote, the selected tokens (B, k, D), and the merged rest (B, 1, D), if any."""

    vote: LayerVote
    tokens: Tensor
    merged: Tensor | None = None


class Votes(NamedTuple):
    """What the heads voted for in one forward pass; every tensor is detached.

    Patches are numbered row by row over `grid`, prefix tokens not counted.
    """

    grid: tuple[int, int]  # rows, columns of patches
    budget: tuple[int, ...]  # (S,) tokens forwarded by each layer; sums to T
    ballots: Tensor  # (B, S, P) float32, counts of votes
    enhanced: Tensor  # (B, S, P) float32, ballots after smoothing
    selected: Tensor  # (B, T) int64, patch number of every selected token, layer by layer
    key_ballots: Tensor  # (B, T) float32, second vote over the selected tokens; zeros without refinement
    key_positions: Tensor  # (B, K) int64, which of the T tokens won the second vote
    layer_picks: Tensor  # (S,) int64, key tokens that came from each layer, summed over the batch
    head_votes: Tensor | None = None  # (B, S, H, P) bool, the votes behind the ballots; None unless asked for

    def per_patch(self) -> Tensor:
        """Return the final votes laid back on the patches, (B, P): second-vote counts summed where layers agree."""
        final = self.ballots.new_zeros(self.ballots.shape[0], self.ballots.shape[2])
        return final.scatter_add(1, self.selected, self.key_ballots)


class ModelOutput(NamedTuple):
    """What the classifier says of a batch.

    `logits` (B, C) are the prediction; `complement` (B, C) the logits of the refinement stage, None without it;
    `embedding` (B, D) the CLS token that the triplet loss shapes; `votes` None for the plain backbone.
    """

    logits: Tensor
    complement: Tensor | None
    embedding: Tensor
    votes: Votes | None


@dataclass(frozen=True)
class Predictions:
    """What a model said of a split, kept as arrays so that any figure can be computed again later.

    One row an image: image_ids (n,) str, labels (n,) int64 (-1 where unknown), logits (n, C) float32,
    final_votes (n, P) float32 or None, grid (rows, columns) or None, most_voted (n,) int64, the patch with the most
    final votes (of equal ones that with the higher enhanced ballots), or None, embeddings (n, D) float32 or None,
    groups (n,) str, equal for images of one subject, or None where every image is one by itself.

    Where several views of each image were looked at, `view_names` (V,) tells which, the plain one first, and
    view_logits (n, V, C) float32 is what the model said of each; all other arrays are of the plain view.
    """

    image_ids: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    final_votes: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    embeddings: np.ndarray | None = None
    groups: np.ndarray | None = None
    view_names: tuple[str, ...] = ()
    view_logits: np.ndarray | None = None
    most_voted: np.ndarray | None = None


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes a tensor, the same in training, evaluation and every export.

    `resize` (rows, columns) squashes the whole image to that size, `image_size` (rows, columns) is then cut from the
    centre; `mean` and `std` are the backbone's own. `decoding` is "exact" (every pixel decoded, resized by Pillow) or
    "fast" (what differs: docs/data.md); bundles from before there was a choice do not name it, and are exact.
    """

    image_size: tuple[int, int]
    resize: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    decoding: str = "exact"


class Answer(NamedTuple):
    """What is said of an image: a `text`, and its `kind`.

    That is "class", a higher level of the taxonomy such as "genus", "unknown" where the image is of none of the
    classes, or "unsure" where nothing is answered.
    """

    text: str
    kind: str


@dataclass(frozen=True)
class Ranked:
    """What was found in one image: class names with probabilities, best first.

    `answer` is what that amounts to under the rules that were asked for, None where none was. `photographs` names
    those of one subject that were judged together, and is empty where it is one image.
    """

    image_id: str
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    answer: Answer | None = None
    photographs: tuple[str, ...] = ()
