"""How classes are added: prototypes, and when a new class is answered instead of an old one (docs/new_classes.md)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from finevote.errors import ArgumentError
from finevote.evaluation.addition import (
    Addition,
    Values,
    added_logits,
    closeness,
    directions,
    discriminants,
    extended_logits,
)
from finevote.evaluation.metrics import Labels
from finevote.evaluation.rows import take_rows
from finevote.types import Predictions

NUM_FOLDS = 5
_PRIOR_SD = 2.0  # of the logarithm of the slope: a weak opinion, which counts where new and old never meet
_RIDGE = 1e-6  # of the mean variance, for directions in which nothing varies


class Old(NamedTuple):
    """What is known of the classes that are there.

    `images` are validation images of the C trained classes with logits and embeddings, `means` (C, D) the trained
    classes' prototypes, mean directions of training images, NaN for a class without any. `earlier` are the additions
    that are there already, `temperature` divides logits, and all of it holds at `keep_rate`.
    """

    images: Predictions
    means: Values
    temperature: float = 1.0
    keep_rate: float = 1.0
    earlier: tuple[Addition, ...] = ()


class _Geometry(NamedTuple):
    """weights (C + A, D) and offsets (C + A,) of all classes, and the precision (D, D) that they are made with."""

    weights: Values
    offsets: Values
    precision: Values


class _Pool(NamedTuple):
    """m images to fit by: trained logits (m, C), logits that stay (m, F), closeness (m, C + A), labels (m,)."""

    trained: Values
    fixed: Values
    close: Values
    labels: Labels

    def only(self, is_wanted: NDArray[np.bool_]) -> "_Pool":
        """Return the images that are wanted, (m,)."""
        return _Pool(self.trained[is_wanted], self.fixed[is_wanted], self.close[is_wanted], self.labels[is_wanted])


def fit_addition(class_names: Sequence[str], new: Predictions, paths: Sequence[str | None], old: Old) -> Addition:
    """Return new classes as they go beside the old ones.

    A class's prototype is the mean direction of its photographs' embeddings. Closeness to prototypes is measured by the
    precision of validation images around their classes' prototypes (Ledoit and Wolf 2004). Slope and bias minimise the
    cross-entropy of old and new classes together, each class weighing alike: of validation images for the old, of their
    own photographs for the new, each left out of its prototype. A new class with a single photograph has no say in
    that; where all are, the slope is the one between closeness and logits of the old classes, and the bias 0.

    Args:
        class_names: A names.
        new: their photographs, labels in 0 to A - 1, with the trained classifier's logits and embeddings.
        paths: where each lies, or None.
        old: the classes that are there.

    Raises:
        ArgumentError: a class has no photograph, or the parts do not fit together.
    """
    geometry = _find_geometry(new, old, num_added=len(class_names))
    left_out = _leave_out(new, geometry, num_trained=len(old.means))
    slope, bias = _fit_logits(new, left_out, old, geometry)
    own = added_logits(new.logits, left_out, slope=slope, bias=bias)[np.arange(len(new.labels)), new.labels]
    return Addition(
        class_names=tuple(class_names),
        weights=geometry.weights,
        offsets=geometry.offsets,
        slope=slope,
        bias=bias,
        labels=new.labels,
        image_ids=new.image_ids,
        paths=tuple(paths),
        embeddings=_embeddings(new),
        logits=new.logits,
        own_logits=np.where(np.bincount(new.labels)[new.labels] > 1, own, np.nan),
        keep_rate=old.keep_rate,
    )


def old_logits_across(class_names: Sequence[str], new: Predictions, old: Old) -> Values:
    """Return extended logits (m, C + all) of the validation images, each fifth by an addition fitted to the others.

    What is fitted to images tells of them too kindly. Images of one group stay together; one group alone is judged by
    itself.
    """
    images = old.images
    names = images.image_ids if images.groups is None else images.groups
    _, numbers = np.unique(np.asarray(names, np.str_), return_inverse=True)
    places = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % NUM_FOLDS  # (m,)
    earlier = extended_logits(images.logits, _embeddings(images), old.earlier).astype(np.float64)
    added = np.empty((len(images.labels), len(class_names)))
    for fold in np.unique(places):
        rows = np.flatnonzero(places == fold)
        others = np.flatnonzero(places != fold) if len(rows) < len(places) else rows
        paths = [None] * len(new.labels)
        fitted = fit_addition(class_names, new, paths, old._replace(images=take_rows(images, others)))
        added[rows] = fitted.logits_of(images.logits[rows], _embeddings(images)[rows])
    return np.concatenate([earlier, added], axis=1)


def _find_geometry(new: Predictions, old: Old, *, num_added: int) -> _Geometry:
    counts = np.bincount(new.labels, minlength=num_added)
    if len(counts) > num_added or not counts.all():
        raise ArgumentError(f"{num_added} new classes have {counts.tolist()} photographs: give one or more of each")
    precision = _find_precision(old)
    sums = np.zeros((num_added, old.means.shape[1]))
    np.add.at(sums, new.labels, directions(_embeddings(new)))
    is_known = np.asarray(np.isfinite(old.means).all(axis=1))
    trained = np.where(is_known[:, None], old.means, 0.0)
    weights, offsets = discriminants(np.concatenate([trained, directions(sums)]), precision)
    weights = weights.astype(np.float32).astype(np.float64)  # as they are kept
    offsets[: len(trained)][~is_known] = -np.inf
    return _Geometry(weights, offsets, precision)


def _find_precision(old: Old) -> Values:
    """Return the inverse of how embeddings vary within a class, (D, D)."""
    from sklearn.covariance import ledoit_wolf

    residuals = directions(_embeddings(old.images)) - old.means[old.images.labels]
    residuals = residuals[np.isfinite(residuals).all(axis=1)]
    width = residuals.shape[1]
    if len(residuals) < 2 or not (variance := float((residuals**2).mean())):
        return np.eye(width)
    covariance, _ = ledoit_wolf(residuals, assume_centered=True)
    return np.asarray(np.linalg.inv(covariance + _RIDGE * variance * np.eye(width)))


def _leave_out(new: Predictions, geometry: _Geometry, *, num_trained: int) -> Values:
    """Return closeness (n, C + A) of the new photographs, that to the own class without the photograph itself."""
    unit = directions(_embeddings(new))
    close = closeness(unit, geometry.weights, geometry.offsets)
    sums = np.zeros((len(geometry.offsets) - num_trained, unit.shape[1]))
    np.add.at(sums, new.labels, unit)
    weights, offsets = discriminants(directions(sums[new.labels] - unit), geometry.precision)  # (n, D), (n,)
    close[np.arange(len(unit)), num_trained + new.labels] = (unit * weights).sum(axis=1) + offsets
    return close


def _fit_logits(new: Predictions, left_out: Values, old: Old, geometry: _Geometry) -> tuple[float, float]:
    """Return slope and bias."""
    pool = _gather(new, left_out, old, geometry)
    num_fixed, num_trained = pool.fixed.shape[1], pool.trained.shape[1]
    slope = _slope_of_trained(pool.trained, pool.close[:, :num_trained])
    if not (pool.labels >= num_fixed).any():
        return slope, 0.0
    rows, is_new = np.arange(len(pool.labels)), np.asarray(pool.labels >= num_fixed)
    _, classes, sizes = np.unique(pool.labels, return_inverse=True, return_counts=True)
    weights = len(rows) / (len(sizes) * sizes[classes])  # (m,), 1 on average
    stay = logsumexp(pool.fixed / old.temperature, axis=1)
    true_stay = pool.fixed[rows, np.where(is_new, 0, pool.labels)]

    def loss(values: NDArray[np.float64]) -> float:
        added = added_logits(pool.trained, pool.close, slope=float(np.exp(values[0])), bias=float(values[1]))
        true = np.where(is_new, added[rows, np.where(is_new, pool.labels - num_fixed, 0)], true_stay)
        whole = np.logaddexp(stay, logsumexp(added / old.temperature, axis=1))
        prior = ((values[0] - np.log(slope)) / _PRIOR_SD) ** 2 / 2
        return float(weights @ (whole - true / old.temperature) + prior)

    start = np.array([np.log(slope), 0.0])
    simplex = start + np.array([[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]])
    found = minimize(loss, start, method="Nelder-Mead", options={"initial_simplex": simplex, "xatol": 1e-5})
    return float(np.exp(found.x[0])), float(found.x[1])


def _gather(new: Predictions, left_out: Values, old: Old, geometry: _Geometry) -> _Pool:
    """Return the images to fit by: validation, photographs of earlier additions, and new ones that can be left out."""
    images, num_trained = old.images, len(old.means)
    parts = [_pool(images.logits, _embeddings(images), images.labels, old, geometry)]
    first = num_trained
    for addition in old.earlier:
        part = _pool(addition.logits, addition.embeddings, first + addition.labels, old, geometry)
        part.fixed[np.arange(len(part.labels)), part.labels] = addition.own_logits
        parts.append(part.only(np.isfinite(addition.own_logits)))
        first += len(addition.class_names)
    part = _pool(new.logits, _embeddings(new), first + new.labels, old, geometry)._replace(close=left_out)
    parts.append(part.only(np.bincount(new.labels)[new.labels] > 1))
    trained, fixed, close, labels = (np.concatenate(values) for values in zip(*parts, strict=True))
    return _Pool(trained, fixed, close, labels)


def _pool(
    logits: NDArray[np.floating[Any]],
    embeddings: NDArray[np.floating[Any]],
    labels: Labels,
    old: Old,
    geometry: _Geometry,
) -> _Pool:
    fixed = extended_logits(logits, embeddings, old.earlier).astype(np.float64)
    close = closeness(embeddings, geometry.weights, geometry.offsets)
    return _Pool(logits.astype(np.float64), fixed, close, labels)


def _slope_of_trained(logits: Values, close: Values) -> float:
    """Return s of logit_k - logit_c = s (closeness_k - closeness_c) by least squares, c the class that is named."""
    best = logits.argmax(axis=1)[:, None]
    known = np.where(np.isneginf(close), np.nan, close)
    x, y = (values - np.take_along_axis(values, best, axis=1) for values in (known, logits))
    is_known = np.isfinite(x)
    x, y = x[is_known], y[is_known]
    square = float((x**2).sum())
    slope = float((x * y).sum()) / square if square else 0.0
    return slope if slope > 0 else 1 / max(float(np.abs(x).mean()) if len(x) else 1.0, 1e-12)


def _embeddings(images: Predictions) -> NDArray[np.floating[Any]]:
    if images.embeddings is None:
        raise ArgumentError("adding classes needs embeddings: predict the images again with this finevote")
    return images.embeddings
