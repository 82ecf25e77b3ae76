"""A bundle's model over photographs, and why it says what it says: one forward pass, told by its own tensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypedDict

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
from finevote.evaluation.addition import check_nothing_added, extended_logits
from finevote.evaluation.answers import AnswerRule, Thresholds, find_thresholds
from finevote.evaluation.calibrator import SetRule, told_probabilities
from finevote.evaluation.evidence import Neighbour as FoundNeighbour
from finevote.evaluation.evidence import find_evidence
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.metrics import Logits, Rates, rank_classes
from finevote.evaluation.predict import evaluation_mode
from finevote.evaluation.ranking import check_calibration
from finevote.explanation.contrast import NUM_PERMUTATIONS, contrast_patches
from finevote.explanation.explained import Contrast, Evidence, Explanation, Neighbour, PredictionSet, Verdict
from finevote.explanation.vote_map import view_in_photograph, vote_maps
from finevote.model import FineGrainedClassifier, TrunkOutput
from finevote.types import ModelOutput, Preprocessing, Ranked
from finevote.voting.head import PlacedTokens, gather_forwarded

COVERAGE, FALSE_ALARMS = 0.9, 0.05  # where the bundle can promise them
SHOWN_PX, NEIGHBOUR_PX = 1024, 256


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
    num_neighbours: int


class Question(NamedTuple):
    """What is wanted to be known of an image.

    `top` classes are named. `coverage` is that of the set, by the method `sets`, and `false_alarms` the share of images
    of known classes that may be called unknown, by the score `unknown_by`; None for 0.9 and 0.05 where the bundle can
    promise them. `contrast` names the class A and the class B that are held against each other: () for the likeliest
    and the runner-up, (A,) for A and the likeliest of the others, None for no contrast; it takes `num_permutations`
    orders of the patches, drawn with `seed`. `num_neighbours` training images of the likeliest class
    and of the runner-up are shown as evidence, where the bundle has a gallery; 0 for none.
    """

    top: int = 5
    coverage: float | None = None
    sets: str = "lac"
    false_alarms: float | None = None
    unknown_by: str = "distance"
    contrast: Sequence[str] | None = None
    num_permutations: int = NUM_PERMUTATIONS
    seed: int = 0
    num_neighbours: int = 4


class _Look(NamedTuple):
    """A photograph as it is shown, and resized as the model takes it, (3, h, w) uint8."""

    image_id: str
    shown: Image.Image
    resized: Tensor
    true_name: str | None


def explain_each(
    photographs: Iterable[Photograph],
    *,
    bundle: Bundle,
    model: FineGrainedClassifier,
    device: torch.device,
    question: Question,
    gallery: Gallery | None = None,
    batch_size: int = 8,
    unreadable: dict[str, str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Explanation]:
    """Return an iterator over the explanations of photographs, in order.

    What cannot be read is entered in `unreadable` with its reason and passed over; without that it is an error.
    `advance` is called with the number of photographs just done. Of `question` what was not asked for by name and
    cannot be had is left out with a note.

    Raises:
        ArgumentError: the model has no votes, there are no such classes, `top` is under 1, or what was asked for by
            name cannot be promised.
        DataError: a photograph cannot be read.
    """
    _check(bundle, model, question)
    notes: list[str] = []
    explainer = _Explainer(
        bundle=bundle,
        model=model,
        device=device,
        question=question,
        sets=_find_set_rule(bundle, model, question, notes),
        thresholds=_find_unknown_rule(bundle, model, question, notes),
        gallery=_fitting(gallery, model, notes),
        notes=tuple(dict.fromkeys(notes)),
    )

    def explanations() -> Iterator[Explanation]:
        waiting = iter(photographs)
        while batch := list(islice(waiting, batch_size)):
            if looks := _look_at(batch, bundle.preprocessing, unreadable):
                yield from explainer.explain(looks)
            if advance is not None:
                advance(len(batch))

    return explanations()


def _check(bundle: Bundle, model: FineGrainedClassifier, question: Question) -> None:
    if not model.head.votes:
        raise ArgumentError(
            "the classifier has no votes to explain it by: it is the plain backbone (model.voting.enabled=false); "
            "fit one that votes"
        )
    if question.top < 1:
        raise ArgumentError(f"top={question.top} must be 1 or more: how many classes to name")
    if (wanted := question.contrast) is None:
        return
    if isinstance(wanted, str) or len(wanted) > 2 or len(set(wanted)) < len(wanted):
        raise ArgumentError(f"contrast={wanted!r} must be (), (A,) or (A, B), with two different classes A and B")
    for name in wanted:
        _check_trained(name, bundle)
    if question.num_permutations < 4 or question.num_permutations % 2:
        raise ArgumentError(f"num_permutations={question.num_permutations} must be an even number from 4")


def _check_trained(name: str, bundle: Bundle) -> None:
    if name in bundle.added_names:
        raise ArgumentError(
            f"contrast: {name!r} was added by its photographs, and no votes tell it from others: give classes that the "
            "model was trained on"
        )
    if name not in bundle.class_names:
        raise ArgumentError(f"contrast: there is no class {name!r}{suggest(name, bundle.class_names)}")


def _find_set_rule(
    bundle: Bundle, model: FineGrainedClassifier, question: Question, notes: list[str]
) -> SetRule | None:
    rule = SetRule(COVERAGE if question.coverage is None else question.coverage, question.sets)
    try:
        check_nothing_added(bundle.added_names)
        calibration = check_calibration(bundle.calibration, keep_rate=model.keep_rate)
        calibration.count_always_in(rule, num_classes=len(bundle.class_names))  # raises for a bad rule
    except ArgumentError as error:
        if question.coverage is not None:
            raise
        notes.append(str(error))
        return None
    return rule


def _find_unknown_rule(
    bundle: Bundle, model: FineGrainedClassifier, question: Question, notes: list[str]
) -> Thresholds | None:
    rule = AnswerRule(
        FALSE_ALARMS if question.false_alarms is None else question.false_alarms, unknown_by=question.unknown_by
    )
    try:
        check_nothing_added(bundle.added_names)
        return find_thresholds(check_calibration(bundle.calibration, keep_rate=model.keep_rate), rule)
    except ArgumentError as error:
        if question.false_alarms is not None:
            raise
        notes.append(str(error))
        return None


def _fitting(gallery: Gallery | None, model: FineGrainedClassifier, notes: list[str]) -> Gallery | None:
    """Return the gallery if it is of the keep rate that the model has now."""
    if gallery is None:
        return None
    if gallery.keep_rate != model.keep_rate:
        notes.append(f"the gallery is of keep rate {gallery.keep_rate:g}, so no training photographs are shown")
        return None
    return gallery


def _look_at(
    batch: Sequence[Photograph], preprocessing: Preprocessing, unreadable: dict[str, str] | None
) -> list[_Look]:
    looks = []
    for photograph in batch:
        try:
            looks.append(_look(photograph, preprocessing))
        except DataError as error:
            if unreadable is None:
                raise
            unreadable[photograph.image_id] = str(error)
    return looks


def _look(photograph: Photograph, preprocessing: Preprocessing) -> _Look:
    is_exact = preprocessing.decoding == "exact"
    with enough_pixels(None if is_exact else (SHOWN_PX, SHOWN_PX)):
        whole = photograph.read()
    resized = read_resized((lambda: whole) if is_exact else photograph.read, preprocessing)
    return _Look(photograph.image_id, _shrunk(whole, SHOWN_PX), resized, photograph.true_name)


def _shrunk(image: Image.Image, longest_px: int) -> Image.Image:
    shown = image.copy()
    shown.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return shown


@dataclass(frozen=True)
class _Explainer:
    """A model with all of its bundle that can be used to answer a question; `notes` say what cannot, and why."""

    bundle: Bundle
    model: FineGrainedClassifier
    device: torch.device
    question: Question
    sets: SetRule | None
    thresholds: Thresholds | None
    gallery: Gallery | None
    notes: tuple[str, ...]

    def explain(self, looks: Sequence[_Look]) -> Iterator[Explanation]:
        """Yield an explanation of each photograph of a batch, from one forward pass."""
        bundle, question = self.bundle, self.question
        trunk, output = self._forward(torch.stack([look.resized for look in looks]))
        logits, embeddings = (values.float().cpu().numpy() for values in (output.logits, output.embedding))
        every = extended_logits(logits, embeddings, bundle.additions)  # (B, C and the added)
        probabilities, ranks = told_probabilities(every, bundle.calibration), rank_classes(every)
        sets, verdicts = self._find_sets(probabilities, ranks), self._judge(logits, embeddings)
        evidence = self._find_evidence(every, embeddings, [look.image_id for look in looks])
        maps = vote_maps(output.votes) if output.votes is not None else []
        for row, look in enumerate(looks):
            named = ranks[row, : question.top]
            yield Explanation(
                image_id=look.image_id,
                photograph=look.shown,
                view=view_in_photograph(bundle.preprocessing),
                ranked=Ranked(
                    look.image_id, self._names(named), tuple(float(probabilities[row, label]) for label in named)
                ),
                is_calibrated=self._is_calibrated,
                votes=maps[row],
                prediction_set=sets[row],
                verdict=verdicts[row],
                contrast=self._contrast(trunk, row, rank_classes(logits)[row]),
                evidence=evidence[row],
                notes=self.notes,
                true_name=look.true_name,
            )

    @property
    def _is_calibrated(self) -> bool:
        """Whether the calibration is of the classes and of the keep rate that the model has now."""
        calibration = self.bundle.calibration
        return calibration is not None and calibration.keep_rate == self.model.keep_rate and not self.bundle.additions

    def _names(self, labels: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.bundle.all_class_names[label] for label in labels)

    def _forward(self, resized: Tensor) -> tuple[TrunkOutput, ModelOutput]:
        """Return what the trunk gave, and the output of the same pass, for resized images (B, 3, h, w) uint8."""
        images = eval_transform(self.bundle.preprocessing)(resized.to(self.device))
        with evaluation_mode(self.model), torch.inference_mode():
            trunk = self.model.run_trunk(images, with_head_votes=True)
            grid = self.model.backbone.grid
            return trunk, self.model.head(trunk.cls, trunk.forwarded, grid=grid, noise=None)

    def _find_sets(self, probabilities: Rates, ranks: NDArray[np.int64]) -> list[PredictionSet | None]:
        rule, calibration = self.sets, self.bundle.calibration
        if rule is None or calibration is None:
            return [None] * len(ranks)
        is_in = np.take_along_axis(calibration.sets(probabilities, rule), ranks, axis=1)  # (B, C) by rank
        return [
            PredictionSet(rule.coverage, rule.method, self._names(row[told]))
            for row, told in zip(ranks, is_in, strict=True)
        ]

    def _judge(self, logits: Logits, embeddings: Logits) -> list[Verdict | None]:
        thresholds, calibration = self.thresholds, self.bundle.calibration
        if thresholds is None or calibration is None:
            return [None] * len(logits)
        method, limit = thresholds.unknown_by, thresholds.unknown
        false_alarms = FALSE_ALARMS if self.question.false_alarms is None else self.question.false_alarms
        scores = calibration.unknown_scores(logits, embeddings)[method]
        return [Verdict(bool(score > limit), float(score), limit, method, false_alarms) for score in scores]

    def _find_evidence(
        self, logits: Logits, embeddings: Logits, image_ids: Sequence[str]
    ) -> list[tuple[Evidence, ...]]:
        if self.gallery is None or len(self.bundle.all_class_names) < 2:
            return [()] * len(logits)
        found = find_evidence(
            self.gallery,
            logits,
            embeddings,
            class_names=self.bundle.all_class_names,
            num_each=self.question.num_neighbours,
            names=image_ids,
        )
        return [
            (
                Evidence(one.predicted, tuple(map(_shown_neighbour, one.of_predicted))),
                Evidence(one.runner_up, tuple(map(_shown_neighbour, one.of_runner_up))),
            )
            for one in found
        ]

    def _contrast(self, trunk: TrunkOutput, row: int, ranks: NDArray[np.int64]) -> Contrast | None:
        question, class_names = self.question, self.bundle.class_names
        if question.contrast is None or len(ranks) < 2:
            return None
        named = [class_names.index(name) for name in question.contrast]
        first, second = [*named, *(int(label) for label in ranks if label not in named)][:2]
        gathered = gather_forwarded(trunk.forwarded)
        with evaluation_mode(self.model):
            return contrast_patches(
                self.model.head,
                trunk.cls[row : row + 1],
                PlacedTokens(gathered.tokens[row : row + 1], gathered.patches[row : row + 1]),
                classes=(first, second),
                class_names=(class_names[first], class_names[second]),
                grid=self.model.backbone.grid,
                num_permutations=question.num_permutations,
                seed=question.seed,
            )


def _shown_neighbour(found: FoundNeighbour) -> Neighbour:
    with enough_pixels((NEIGHBOUR_PX, NEIGHBOUR_PX)):
        picture = found.picture()
    shown = None if picture is None else _shrunk(picture, NEIGHBOUR_PX)
    return Neighbour(found.image_id, found.class_name, found.distance, shown)
