"""A bundle's model over photographs, and why it says what it says: one forward pass, told by its own tensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from finevote.bundle.read import Bundle
from finevote.data.given import Photograph
from finevote.data.images import enough_pixels
from finevote.data.transforms import eval_transform, read_resized
from finevote.errors import ArgumentError, DataError, suggest
from finevote.evaluation.answers import AnswerRule, Thresholds, find_thresholds
from finevote.evaluation.calibrator import SetRule, told_probabilities
from finevote.evaluation.metrics import Rates, rank_classes
from finevote.evaluation.predict import evaluation_mode
from finevote.evaluation.ranking import check_calibration
from finevote.explanation.contrast import NUM_PERMUTATIONS, contrast_patches
from finevote.explanation.explained import Contrast, Explanation, PredictionSet, Verdict
from finevote.explanation.vote_map import view_in_photograph, vote_maps
from finevote.model import FineGrainedClassifier, TrunkOutput
from finevote.types import ModelOutput, Ranked
from finevote.voting.head import PlacedTokens, gather_forwarded

COVERAGE, FALSE_ALARMS = 0.9, 0.05  # where the bundle can promise them
SHOWN_PX = 1024


class Asked(TypedDict, total=False):
    """What can be asked of an explanation, as keywords; `Question` says what each means."""

    top: int
    coverage: float | None
    sets: str
    false_alarms: float | None
    unknown_by: str
    contrast: Sequence[str] | None
    num_permutations: int
    seed: int


class Question(NamedTuple):
    """What is wanted to be known of an image.

    `top` classes are named. `coverage` is that of the set, by the method `sets`, and `false_alarms` the share of images
    of known classes that may be called unknown, by the score `unknown_by`; None for 0.9 and 0.05 where the bundle can
    promise them. `contrast` names the class A and the class B that are held against each other: () for the likeliest
    and the runner-up, (A,) for A and the likeliest of the others, None for no contrast; it takes `num_permutations`
    orders of the patches, drawn with `seed`.
    """

    top: int = 5
    coverage: float | None = None
    sets: str = "lac"
    false_alarms: float | None = None
    unknown_by: str = "distance"
    contrast: Sequence[str] | None = None
    num_permutations: int = NUM_PERMUTATIONS
    seed: int = 0


@dataclass(frozen=True)
class _Promises:
    """What the bundle can promise of what was asked, and why it cannot promise the rest."""

    sets: SetRule | None
    thresholds: Thresholds | None
    notes: tuple[str, ...]


class _Look(NamedTuple):
    """A photograph as it is shown, and resized as the model takes it, (3, h, w) uint8."""

    image_id: str
    shown: Image.Image
    resized: Tensor
    true_name: str | None


def check_question(bundle: Bundle, model: FineGrainedClassifier, question: Question) -> _Promises:
    """Return what of a question can be promised; what was not asked for by name is left out with a note.

    Raises:
        ArgumentError: the model has no votes, there are no such classes, `top` is under 1, or what was asked for by
            name cannot be promised.
    """
    if not model.head.votes:
        raise ArgumentError(
            "the classifier has no votes to explain it by: it is the plain backbone (model.voting.enabled=false); "
            "fit one that votes"
        )
    if question.top < 1:
        raise ArgumentError(f"top={question.top} must be 1 or more: how many classes to name")
    _check_contrast(bundle.class_names, question)
    notes: list[str] = []

    def promised(default: float, asked: float | None, check: Callable[[float], Any]) -> Any:
        try:
            return check(default if asked is None else asked)
        except ArgumentError as error:
            if asked is not None:
                raise
            notes.append(str(error))
            return None

    def check_sets(coverage: float) -> SetRule:
        calibration = check_calibration(bundle.calibration, keep_rate=model.keep_rate)
        rule, num_classes = SetRule(coverage, question.sets), len(bundle.class_names)
        calibration.count_always_in(rule, num_classes=num_classes)  # raises for a bad rule
        return rule

    def check_unknown(false_alarms: float) -> Thresholds:
        calibration = check_calibration(bundle.calibration, keep_rate=model.keep_rate)
        return find_thresholds(calibration, AnswerRule(false_alarms, question.unknown_by))

    sets = promised(COVERAGE, question.coverage, check_sets)
    thresholds = promised(FALSE_ALARMS, question.false_alarms, check_unknown)
    return _Promises(sets, thresholds, tuple(dict.fromkeys(notes)))


def explain_each(
    photographs: Iterable[Photograph],
    *,
    bundle: Bundle,
    model: FineGrainedClassifier,
    device: torch.device,
    question: Question,
    batch_size: int = 8,
    unreadable: dict[str, str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Explanation]:
    """Return an iterator over the explanations of photographs, in order.

    What cannot be read is entered in `unreadable` with its reason and passed over; without that it is an error.
    `advance` is called with the number of photographs just done.

    Raises:
        ArgumentError: as `check_question`.
        DataError: a photograph cannot be read.
    """
    promises = check_question(bundle, model, question)

    def explanations() -> Iterator[Explanation]:
        waiting = iter(photographs)
        while batch := list(islice(waiting, batch_size)):
            if looks := _look_at(batch, bundle, unreadable):
                yield from _explain(
                    looks, bundle=bundle, model=model, device=device, question=question, promises=promises
                )
            if advance is not None:
                advance(len(batch))

    return explanations()


def _look_at(batch: Sequence[Photograph], bundle: Bundle, unreadable: dict[str, str] | None) -> list[_Look]:
    looks = []
    for photograph in batch:
        try:
            looks.append(_look(photograph, bundle))
        except DataError as error:
            if unreadable is None:
                raise
            unreadable[photograph.image_id] = str(error)
    return looks


def _look(photograph: Photograph, bundle: Bundle) -> _Look:
    with enough_pixels((SHOWN_PX, SHOWN_PX) if bundle.preprocessing.decoding == "fast" else None):
        whole = photograph.read()
    is_exact = bundle.preprocessing.decoding == "exact"
    resized = read_resized((lambda: whole) if is_exact else photograph.read, bundle.preprocessing)
    shown = whole.copy()
    shown.thumbnail((SHOWN_PX, SHOWN_PX), Image.Resampling.LANCZOS)
    return _Look(photograph.image_id, shown, resized, photograph.true_name)


def _explain(
    looks: Sequence[_Look],
    *,
    bundle: Bundle,
    model: FineGrainedClassifier,
    device: torch.device,
    question: Question,
    promises: _Promises,
) -> Iterator[Explanation]:
    trunk, output = _forward(model, torch.stack([look.resized for look in looks]), bundle=bundle, device=device)
    logits, embeddings = (values.float().cpu().numpy() for values in (output.logits, output.embedding))
    probabilities, ranks = told_probabilities(logits, bundle.calibration), rank_classes(logits)
    sets = _find_sets(probabilities, ranks, bundle=bundle, rule=promises.sets, num_images=len(looks))
    verdicts = _judge(logits, embeddings, bundle=bundle, promises=promises, question=question)
    maps = vote_maps(output.votes) if output.votes is not None else []
    view = view_in_photograph(bundle.preprocessing)
    for row, look in enumerate(looks):
        named = ranks[row, : question.top]
        yield Explanation(
            image_id=look.image_id,
            photograph=look.shown,
            view=view,
            ranked=Ranked(
                look.image_id,
                tuple(bundle.class_names[label] for label in named),
                tuple(float(probabilities[row, label]) for label in named),
            ),
            is_calibrated=bundle.calibration is not None,
            votes=maps[row],
            prediction_set=sets[row],
            verdict=verdicts[row],
            contrast=_contrast(model, trunk, row, ranks[row], bundle=bundle, question=question),
            notes=promises.notes,
            true_name=look.true_name,
        )


def _forward(
    model: FineGrainedClassifier, resized: Tensor, *, bundle: Bundle, device: torch.device
) -> tuple[TrunkOutput, ModelOutput]:
    """Return what the trunk gave, and the output of the same pass, for resized images (B, 3, h, w) uint8."""
    images = eval_transform(bundle.preprocessing)(resized.to(device))
    with evaluation_mode(model), torch.inference_mode():
        trunk = model.run_trunk(images, with_head_votes=True)
        return trunk, model.head(trunk.cls, trunk.forwarded, grid=model.backbone.grid, noise=None)


def _find_sets(
    probabilities: Rates, ranks: NDArray[np.int64], *, bundle: Bundle, rule: SetRule | None, num_images: int
) -> list[PredictionSet | None]:
    if rule is None or bundle.calibration is None:
        return [None] * num_images
    is_in = np.take_along_axis(bundle.calibration.sets(probabilities, rule), ranks, axis=1)  # (B, C) by rank
    return [
        PredictionSet(rule.coverage, rule.method, tuple(bundle.class_names[label] for label in row[told]))
        for row, told in zip(ranks, is_in, strict=True)
    ]


def _judge(
    logits: NDArray[np.floating[Any]],
    embeddings: NDArray[np.floating[Any]],
    *,
    bundle: Bundle,
    promises: _Promises,
    question: Question,
) -> list[Verdict | None]:
    thresholds = promises.thresholds
    if thresholds is None or bundle.calibration is None:
        return [None] * len(logits)
    method, limit = thresholds.unknown_by, thresholds.unknown
    false_alarms = FALSE_ALARMS if question.false_alarms is None else question.false_alarms
    scores = bundle.calibration.unknown_scores(logits, embeddings)[method]
    return [Verdict(bool(score > limit), float(score), limit, method, false_alarms) for score in scores]


def _check_contrast(class_names: Sequence[str], question: Question) -> None:
    wanted = question.contrast
    if wanted is None:
        return
    if isinstance(wanted, str) or len(wanted) > 2 or len(set(wanted)) < len(wanted):
        raise ArgumentError(f"contrast={wanted!r} must be (), (A,) or (A, B), with two different classes A and B")
    for name in wanted:
        if name not in class_names:
            raise ArgumentError(f"contrast: there is no class {name!r}{suggest(name, class_names)}")
    if question.num_permutations < 4 or question.num_permutations % 2:
        raise ArgumentError(f"num_permutations={question.num_permutations} must be an even number from 4")


def _contrast(
    model: FineGrainedClassifier,
    trunk: TrunkOutput,
    row: int,
    ranks: NDArray[np.int64],
    *,
    bundle: Bundle,
    question: Question,
) -> Contrast | None:
    if question.contrast is None or len(ranks) < 2:
        return None
    named = [bundle.class_names.index(name) for name in question.contrast]
    pair = [*named, *(int(label) for label in ranks if label not in named)][:2]
    gathered = gather_forwarded(trunk.forwarded)
    with evaluation_mode(model):
        return contrast_patches(
            model.head,
            trunk.cls[row : row + 1],
            PlacedTokens(gathered.tokens[row : row + 1], gathered.patches[row : row + 1]),
            classes=(pair[0], pair[1]),
            class_names=(bundle.class_names[pair[0]], bundle.class_names[pair[1]]),
            grid=model.backbone.grid,
            num_permutations=question.num_permutations,
            seed=question.seed,
        )
