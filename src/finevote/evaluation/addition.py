"""Classes added to a trained classifier by photographs alone: their logits, from prototypes, beside its own.

The trained classifier keeps its logits. An added class is answered where its prototype is nearer than that of the class
that the classifier would name (docs/new_classes.md).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.metrics import Labels, Logits

_logger = logging.getLogger(__name__)
_NUM_NAMED = 3  # classes in an error
Vectors = NDArray[np.floating[Any]]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Addition:
    """A classes that were added at once to C trained ones, from n photographs; it is kept in the bundle.

    `weights` (C + A, D) and `offsets` (C + A,) give every class's closeness to an embedding of length 1, the trained
    classes first; an offset is minus infinity where a trained class had no image to make a prototype of. `slope` and
    `bias` make a logit of a difference of closeness. All of it holds at `keep_rate`.

    Of the photographs: `labels` (n,) in 0 to A - 1, `image_ids`, `paths` (absolute, or None), `embeddings` (n, D), the
    trained classifier's `logits` (n, C), and `own_logits` (n,), the logit of the photograph's own class made without
    it; NaN where it is the only one. `details` is ready for JSON.

    Raises:
        ArgumentError: the parts do not fit together.
    """

    class_names: tuple[str, ...]
    weights: Values
    offsets: Values
    slope: float
    bias: float
    labels: Labels
    image_ids: tuple[str, ...]
    paths: tuple[str | None, ...]
    embeddings: Vectors
    logits: Vectors
    own_logits: Values
    keep_rate: float = 1.0
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_added, num_images, width = len(self.class_names), len(self.image_ids), self.weights.shape[-1]
        num_classes = len(self.offsets)
        expected = {
            "weights": (num_classes, width),
            "offsets": (num_classes,),
            "labels": (num_images,),
            "embeddings": (num_images, width),
            "logits": (num_images, num_classes - num_added),
            "own_logits": (num_images,),
        }
        wrong = [
            f"{name} is {getattr(self, name).shape}, not {shape}"
            for name, shape in expected.items()
            if getattr(self, name).shape != shape
        ]
        if wrong or len(self.paths) != num_images or num_classes <= num_added:
            raise ArgumentError(f"added classes do not fit together: {'; '.join(wrong) or 'counts differ'}")
        if not num_added or set(self.labels.tolist()) != set(range(num_added)):
            raise ArgumentError(f"{num_added} added classes must have one photograph or more each")
        numbers = (self.weights, self.embeddings, self.logits, np.array([self.slope, self.bias]))
        if not all(np.isfinite(values).all() for values in numbers) or not (self.offsets < np.inf).all():
            raise ArgumentError("added classes have numbers that are not finite")

    @property
    def num_trained(self) -> int:
        """C."""
        return len(self.offsets) - len(self.class_names)

    def logits_of(self, logits: Logits, embeddings: Vectors) -> Values:
        """Return the logits (m, A) of the added classes for trained logits (m, C) and embeddings (m, D).

        logit_k = logit_c + slope (closeness_k - closeness_c) + bias, c being the class that the trained one names.
        """
        return added_logits(logits, closeness(embeddings, self.weights, self.offsets), slope=self.slope, bias=self.bias)


def extended_logits(logits: Logits, embeddings: Vectors, additions: Sequence[Addition]) -> Logits:
    """Return logits (..., C + all added) from those of the trained classifier (..., C) and embeddings (..., D).

    The trained columns are the same bits; without additions it is the same array.
    """
    if not additions:
        return logits
    flat, vectors = logits.reshape(-1, logits.shape[-1]), embeddings.reshape(-1, embeddings.shape[-1])
    added = [addition.logits_of(flat, vectors).astype(logits.dtype) for addition in additions]
    return np.concatenate([flat, *added], axis=1).reshape(*logits.shape[:-1], -1)


def joined_gallery(gallery: Gallery, additions: Sequence[Addition]) -> Gallery:
    """Return the gallery with the photographs of added classes behind it, where these are of its keep rate.

    They have no thumbnails: those are empty.
    """
    joined, first = gallery, 0
    for addition in additions:
        if addition.keep_rate == gallery.keep_rate:
            added = addition.embeddings.astype(gallery.embeddings.dtype)
            joined = replace(
                joined,
                embeddings=np.concatenate([joined.embeddings, added]),
                labels=np.concatenate([joined.labels, addition.num_trained + first + addition.labels]),
                image_ids=(*joined.image_ids, *(f"added/{image_id}" for image_id in addition.image_ids)),
                paths=(*joined.paths, *addition.paths),
                thumbnails=(*joined.thumbnails, *(b"" for _ in addition.paths if gallery.thumbnails)),
            )
        first += len(addition.class_names)
    return joined


def check_nothing_added(names: Sequence[str]) -> None:
    """Raise ArgumentError if classes were added: what validation images promise was told without them."""
    if names:
        some = ", ".join(names[:_NUM_NAMED]) + (", ..." if len(names) > _NUM_NAMED else "")
        raise ArgumentError(
            f"{len(names)} class{'es were' if len(names) > 1 else ' was'} added to the bundle ({some}), and coverage, "
            "false alarms, errors and taxa hold for the trained classes alone: leave these options out, take the "
            "classes back with `finevote add-class RUN --undo`, or fit a model with their photographs"
        )


def warn_of_keep_rate(additions: Sequence[Addition], *, keep_rate: float) -> None:
    """Warn if classes were added at another keep rate than the one that they are asked at."""
    if rates := sorted({addition.keep_rate for addition in additions} - {keep_rate}):
        _logger.warning(
            "classes were added at keep rate %g, and are asked at %g: they fit best at their own; take them back and "
            "add them again, or give --keep-rate",
            rates[0],
            keep_rate,
        )


def own_extended_logits(addition: Addition, earlier: Sequence[Addition]) -> Values:
    """Return extended logits (n, C + all) of an addition's own photographs, each without itself in its prototype.

    `earlier` are the additions before it; the columns are trained, earlier, then its own. A photograph that is the only
    one of its class has NaN for it.
    """
    before = extended_logits(addition.logits, addition.embeddings, earlier).astype(np.float64)
    own = addition.logits_of(addition.logits, addition.embeddings)
    own[np.arange(len(own)), addition.labels] = addition.own_logits
    return np.concatenate([before, own], axis=1)


def directions(vectors: Vectors) -> Values:
    """Return vectors (n, D) at length 1, in float64."""
    values = np.asarray(vectors, np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12))


def closeness(embeddings: Vectors, weights: Values, offsets: Values) -> Values:
    """Return how close embeddings (m, D) are to each class's prototype, (m, K).

    With unit directions e and prototypes p it is e Q p - p Q p / 2 = -(e - p) Q (e - p) / 2 + a term of e alone: the
    Mahalanobis distance of Fisher's linear discriminant.
    """
    return np.asarray(directions(embeddings) @ weights.T + offsets)


def discriminants(prototypes: Values, precision: Values) -> tuple[Values, Values]:
    """Return weights (K, D) = p Q and offsets (K,) = -p Q p / 2 of prototypes (K, D), by a precision Q (D, D)."""
    weights = prototypes @ precision
    return weights, -0.5 * (weights * prototypes).sum(axis=-1)


def added_logits(logits: Logits, close: Values, *, slope: float, bias: float) -> Values:
    """Return logits (m, A) of added classes, from trained logits (m, C) and the closeness of all, (m, C + A).

    Where the named class has no prototype (-inf), the closest trained class stands for it.
    """
    num_trained = logits.shape[1]
    best = logits.argmax(axis=1)[:, None]  # (m, 1)
    named = np.take_along_axis(close, best, axis=1)
    named = np.where(np.isneginf(named), close[:, :num_trained].max(axis=1, keepdims=True), named)
    top = np.take_along_axis(np.asarray(logits, np.float64), best, axis=1)
    return np.asarray(top + slope * (close[:, num_trained:] - named) + bias)
