"""Labels that are likely wrong: a probe that never saw an image contradicts its label with confidence.

Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021):
a class is believed of an image when its out-of-fold probability reaches that of the class's own images on average.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.evaluation.metrics import softmax

NUM_FOLDS, NUM_REPEATS = 5, 3
NUM_FITS = 2 * NUM_FOLDS * NUM_REPEATS  # for the labels as they are, and on trial
# Of a class's mean own probability. The paper's 1 missed a quarter of the flips planted on `synthetic`, this a tenth.
SENSITIVITY = 0.7
MIN_UNITS = 3  # images (or groups) of a class: with fewer, some fold has too little of it to learn from
TRIAL_SHARE = 0.05  # of the labels flipped on trial
MIN_PRECISION = 0.25  # of the doubts that are told, on trial


class LabelError(NamedTuple):
    """Image `row` is labelled as one class and looks like class `suggested`.

    Probabilities are out of fold; `score`, their difference, ranks the findings.
    """

    row: int
    suggested: int
    probability: float
    own_probability: float

    @property
    def score(self) -> float:
        """How far the suggested class is ahead."""
        return self.probability - self.own_probability


@dataclass(frozen=True)
class Judgement:
    """What a probe says of the labels.

    `errors` are told, the surest first. `agreement` is the share of labels that the probe agrees with out of fold. The
    rest is a trial: of `num_flipped` labels that were flipped at random, the share found (`recall`), and their share of
    all that would have been told (`precision`: a lower bound, since labels wrong before count as false). None where the
    labels could not be judged.
    """

    errors: tuple[LabelError, ...]
    agreement: float | None = None
    num_flipped: int = 0
    recall: float | None = None
    precision: float | None = None


def judge_labels(
    views: NDArray[np.float32],
    labels: NDArray[np.int64],
    units: Sequence[int],
    *,
    num_classes: int,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Judgement:
    """Return the labels that are likely wrong, and how far such a judgement can be trusted on these data.

    The judging is tried first on the same images with 5% of the labels flipped at random. Doubts are then told down to
    the score below which fewer than one in four was a flip on trial: a weak probe tells little, not much nonsense.
    Arguments as of `out_of_fold`; `advance` is called with 1 after each of the 30 fits.
    """

    def doubts(given: NDArray[np.int64]) -> tuple[list[LabelError], NDArray[np.float64]]:
        found = out_of_fold(views, given, units, num_classes=num_classes, seed=seed, advance=advance)
        probabilities = calibrate(found, given)
        return find_label_errors(probabilities, given), probabilities

    errors, probabilities = doubts(labels)
    agreed = agreement(probabilities, labels)
    if agreed is None:
        return Judgement(())
    judged = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    flipped = flip_labels(labels, judged, share=TRIAL_SHARE, seed=seed)
    is_flipped = flipped != labels
    trial, _ = doubts(flipped)
    num_told = count_trusted([bool(is_flipped[error.row]) for error in trial])
    lowest = trial[num_told - 1].score if num_told else np.inf
    num_found = sum(bool(is_flipped[error.row]) for error in trial[:num_told])
    return Judgement(
        errors=tuple(error for error in errors if error.score >= lowest),
        agreement=agreed,
        num_flipped=int(is_flipped.sum()),
        recall=num_found / max(int(is_flipped.sum()), 1),
        precision=num_found / num_told if num_told else 0.0,
    )


def flip_labels(labels: NDArray[np.int64], rows: NDArray[np.int64], *, share: float, seed: int) -> NDArray[np.int64]:
    """Return the labels with a share of those of `rows`, at least one, changed to other classes that `rows` have."""
    generator = np.random.default_rng(seed)
    classes = np.unique(labels[rows])
    chosen = generator.choice(rows, max(1, round(share * len(rows))), replace=False)
    places = np.searchsorted(classes, labels[chosen]) + generator.integers(1, len(classes), len(chosen))
    flipped = labels.copy()
    flipped[chosen] = classes[places % len(classes)]
    return flipped


def count_trusted(is_right: Sequence[bool], *, min_precision: float = MIN_PRECISION) -> int:
    """Return how many doubts, from the surest down, can be told so that this share of them is right."""
    shares = np.cumsum(is_right) / np.arange(1, len(is_right) + 1)
    good = np.flatnonzero(shares >= min_precision)
    return int(good[-1]) + 1 if len(good) else 0


def calibrate(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return p^(1/T), normalised, with the temperature T under which the labels are likeliest; rows of NaN stay so.

    Out of fold a probe is surer than it may be, the more the fewer images it has (Guo et al., "On Calibration of Modern
    Neural Networks", 2017).
    """
    from scipy.optimize import minimize_scalar

    rows = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    if not len(rows):
        return probabilities
    logs = np.log(probabilities[rows].clip(min=1e-12))

    def loss(log_temperature: float) -> float:
        own = softmax(logs / np.exp(log_temperature))[np.arange(len(rows)), labels[rows]]
        return float(-np.log(own.clip(min=1e-12)).mean())

    best = minimize_scalar(loss, bounds=(-2.0, 3.0), method="bounded")
    calibrated = probabilities.copy()
    calibrated[rows] = softmax(logs / np.exp(best.x))
    return calibrated


def out_of_fold(
    views: NDArray[np.float32],
    labels: NDArray[np.int64],
    units: Sequence[int],
    *,
    num_classes: int,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Return class probabilities (n, C) of each image by probes that saw neither it nor anything of its unit.

    The probe is a linear discriminant with shrunk covariance: its class means hardly move for a few wrong labels, where
    logistic regression bends to fit each of them. Five folds, divided anew three times and averaged. Rows that cannot
    be judged are NaN, as those of classes with fewer than three units.

    Args:
        views: (V, n, d) features of V views of each image, such as its mirror image; trained on all, averaged over all.
        labels: (n,).
        units: a number for each image; images of one unit (a group, copies) are on one side of every fold.
        num_classes: C.
        seed: of the folds.
        advance: called with 1 after each of the 15 fits.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    probabilities = np.full((len(labels), num_classes), np.nan)
    judged = np.flatnonzero(_is_judged(labels, units))
    if not len(judged):
        return probabilities
    probabilities[judged] = 0.0
    for repeat in range(NUM_REPEATS):
        for train, held_out in _folds(labels[judged], np.asarray(units)[judged], seed=seed + repeat):
            probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            rows, others = judged[train], judged[held_out]
            if len(np.unique(labels[rows])) < 2:  # a unit that holds nearly all images
                probabilities[others] = np.nan
                continue
            probe.fit(np.concatenate(views[:, rows]), np.tile(labels[rows], len(views)))
            mean = np.mean([probe.predict_proba(view[others]) for view in views], axis=0)
            probabilities[np.ix_(others, probe.classes_)] += mean / NUM_REPEATS
            if advance is not None:
                advance(1)
    return probabilities


def find_label_errors(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, sensitivity: float = SENSITIVITY
) -> list[LabelError]:
    """Return the images whose label is likely wrong, the surest first.

    With p_c the out-of-fold probability of class c and t_c the mean of p_c over the images labelled c, image i with
    label y is told if its likeliest other class c has p_c > p_y and p_c >= sensitivity x t_c. Rows of NaN are skipped.
    """
    rows = np.flatnonzero(~np.isnan(probabilities).any(axis=1))
    own = probabilities[rows, labels[rows]]
    others = probabilities[rows].copy()
    others[np.arange(len(rows)), labels[rows]] = -1.0
    suggested = others.argmax(axis=1)
    best = others.max(axis=1)
    thresholds = sensitivity * class_thresholds(probabilities[rows], labels[rows])
    is_error = (best > own) & (best >= thresholds[suggested])
    found = [
        LabelError(int(rows[i]), int(suggested[i]), float(best[i]), float(own[i])) for i in np.flatnonzero(is_error)
    ]
    return sorted(found, key=lambda error: (-error.score, error.row))


def class_thresholds(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return t_c, the mean probability of c over the images labelled c; infinite for a class without images."""
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def agreement(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    """Return the share of judged images whose likeliest class is their label; None if none could be judged."""
    is_judged = ~np.isnan(probabilities).any(axis=1)
    if not is_judged.any():
        return None
    return float((probabilities[is_judged].argmax(axis=1) == labels[is_judged]).mean())


def _is_judged(labels: NDArray[np.int64], units: Sequence[int]) -> NDArray[np.bool_]:
    num_units = Counter(label for label, _ in set(zip(labels.tolist(), units, strict=True)))
    enough = np.array([num_units[label] >= MIN_UNITS for label in labels.tolist()], bool)
    return enough if len(set(labels[enough].tolist())) > 1 else np.zeros(len(labels), bool)


def _folds(
    labels: NDArray[np.int64], units: NDArray[np.int64], *, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (training rows, held-out rows) of each fold, stratified by class; units stay whole."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    num_folds = min(NUM_FOLDS, len(np.unique(units)), int(np.bincount(labels).max()))
    has_groups = len(np.unique(units)) < len(units)  # the splitter of groups takes far longer
    splitter = (StratifiedGroupKFold if has_groups else StratifiedKFold)(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer images than folds is absent from some: no harm
        warnings.filterwarnings("ignore", message="The least populated class")
        return list(splitter.split(np.zeros(len(labels)), labels, units if has_groups else None))
