"""From what a model says to what is answered over HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.ranking import Ask, Looked, Ranking
from finevote.evaluation.unknown import METHODS
from finevote.explanation.explained import Contrast, Explanation, PredictionSet, Verdict, VoteMaps
from finevote.serving import schemas
from finevote.serving.refusals import Refusal
from finevote.types import Box, Ranked

if TYPE_CHECKING:
    from finevote.evaluation.evidence import Neighbour

_SETS = "lac"  # the smallest, as `finevote predict` has them unless told otherwise
_THUMBNAIL_PX = 160


class Wanted(NamedTuple):
    """A query that was found possible: the classes and the answer, the set, and the false alarms of the verdict.

    `votes` and `evidence` are wanted where they can be had.
    """

    ask: Ask
    sets: SetRule | None = None
    false_alarms: float | None = None
    votes: bool = False
    evidence: bool = False


def check_query(ranking: Ranking, query: schemas.PredictQuery) -> Wanted:
    """Return what a query wants.

    Raises:
        Refusal: the bundle cannot promise it (422).
    """
    has_rule = any(value is not None for value in (query.false_alarms, query.max_error, query.sure))
    rule = AnswerRule(query.false_alarms, METHODS[0], query.max_error, query.sure) if has_rule else None
    sets = None if query.coverage is None else SetRule(query.coverage, _SETS)
    try:
        ranking.check(top=query.top, sets=sets)
        ask = ranking.check(top=query.top, rule=rule)
    except ArgumentError as error:
        raise not_possible(error) from None
    return Wanted(ask, sets, query.false_alarms, query.explain, query.evidence)


def not_possible(error: ArgumentError) -> Refusal:
    """Return the refusal of what this model cannot do."""
    return Refusal(
        422,
        str(error),
        allowed="what GET /v1/model tells under `can` and `calibration`",
        what_to_do="leave that out of the query, or serve a bundle that can",
        kind="not_possible",
    )


def tell_images(
    names: Sequence[str],
    looks: Sequence[Looked],
    *,
    ranking: Ranking,
    wanted: Wanted,
    view: Box,
    gallery: Gallery | None,
) -> list[schemas.ImageAnswer]:
    """Return an answer for each image, from what the model said of it: `looks` hold one row each."""
    logits, embeddings = np.stack([look.logits for look in looks]), np.stack([look.embeddings for look in looks])
    outputs = (logits, embeddings)
    ranked = ranking.rank(names, outputs, wanted.ask)
    sets: Sequence[Ranked | None] = [None] * len(names)
    if wanted.sets is not None:
        sets = ranking.rank(names, outputs, Ask(wanted.ask.top, wanted.sets))
    verdicts = _verdicts(logits, embeddings, ranking=ranking, wanted=wanted)
    near = tell_evidence(looks, ranking.class_names, gallery if wanted.evidence else None)
    return [
        schemas.ImageAnswer(
            name=one.image_id,
            top=_likely(one),
            set=None if chosen is None or wanted.sets is None else _set_of(chosen, wanted.sets),
            verdict=verdict,
            answer=None if one.answer is None else schemas.SaidAnswer(text=one.answer.text, kind=one.answer.kind),
            votes=_final_votes(look, view) if wanted.votes else None,
            evidence=evidence,
        )
        for one, chosen, verdict, look, evidence in zip(ranked, sets, verdicts, looks, near, strict=True)
    ]


def tell_evidence(
    looks: Sequence[Looked], class_names: Sequence[str], gallery: Gallery | None
) -> list[list[schemas.ClassEvidence]]:
    """Return for each image the nearest training photographs of the two likeliest classes; nothing without gallery."""
    if gallery is None or len(class_names) < 2:
        return [[] for _ in looks]
    logits, embeddings = np.stack([look.logits for look in looks]), np.stack([look.embeddings for look in looks])
    from finevote.evaluation.evidence import find_evidence  # it imports torch

    return [
        [
            _near_photographs(one.predicted, one.of_predicted),
            _near_photographs(one.runner_up, one.of_runner_up),
        ]
        for one in find_evidence(gallery, logits, embeddings, class_names=class_names)
    ]


def tell_explanation(
    explanation: Explanation, model: schemas.ModelReference, evidence: list[schemas.ClassEvidence]
) -> schemas.ExplainAnswer:
    """Return all that an explanation says."""
    return schemas.ExplainAnswer(
        model=model,
        name=explanation.image_id,
        top=_likely(explanation.ranked),
        is_calibrated=explanation.is_calibrated,
        set=None if explanation.prediction_set is None else _as_set(explanation.prediction_set),
        verdict=None if explanation.verdict is None else _as_verdict(explanation.verdict),
        votes=_vote_details(explanation.votes, explanation.view),
        contrast=None if explanation.contrast is None else _as_contrast(explanation.contrast),
        evidence=evidence,
        notes=list(explanation.notes),
    )


def _likely(ranked: Ranked) -> list[schemas.LikelyClass]:
    return [
        schemas.LikelyClass(class_name=name, probability=probability)
        for name, probability in zip(ranked.class_names, ranked.probabilities, strict=True)
    ]


def _set_of(ranked: Ranked, rule: SetRule) -> schemas.ClassSet:
    return schemas.ClassSet(coverage=rule.coverage, method=rule.method, classes=list(ranked.class_names))


def _as_set(found: PredictionSet) -> schemas.ClassSet:
    return schemas.ClassSet(coverage=found.coverage, method=found.method, classes=list(found.class_names))


def _as_verdict(verdict: Verdict) -> schemas.UnknownVerdict:
    return schemas.UnknownVerdict(**verdict._asdict())


def _verdicts(
    logits: NDArray[np.floating[Any]], embeddings: NDArray[np.floating[Any]], *, ranking: Ranking, wanted: Wanted
) -> Sequence[schemas.UnknownVerdict | None]:
    calibration, thresholds = ranking.calibration, wanted.ask.thresholds
    if calibration is None or thresholds is None or wanted.false_alarms is None:
        return [None] * len(logits)
    method, limit = thresholds.unknown_by, thresholds.unknown
    scores = calibration.unknown_scores(logits, embeddings)[method]
    return [
        schemas.UnknownVerdict(
            is_unknown=bool(score > limit),
            score=float(score),
            threshold=limit,
            method=method,
            false_alarms=wanted.false_alarms,
        )
        for score in scores
    ]


def _final_votes(look: Looked, view: Box) -> schemas.FinalVotes | None:
    if look.votes is None:
        return None
    return schemas.FinalVotes(grid=look.votes.shape, final=_counts(look.votes), view=_view(view))


def _view(view: Box) -> schemas.ViewBox:
    return schemas.ViewBox(left=view.left, top=view.top, right=view.right, bottom=view.bottom)


def _vote_details(votes: VoteMaps, view: Box) -> schemas.VoteDetails:
    parts = np.split(votes.selected, np.cumsum(votes.budget)[:-1])
    heads = votes.head_votes.reshape(*votes.head_votes.shape[:2], -1)  # (S, H, P)
    return schemas.VoteDetails(
        grid=votes.grid,
        view=_view(view),
        kind="second vote" if votes.has_second_vote else "selections",
        final=_counts(votes.final),
        budget=list(votes.budget),
        key_tokens=votes.key_picks.tolist(),
        selected=[part.tolist() for part in parts],
        ballots=[_counts(layer) for layer in votes.ballots],
        enhanced=[_rows(layer) for layer in votes.enhanced],
        heads=[[np.flatnonzero(head).tolist() for head in layer] for layer in heads],
    )


def _as_contrast(contrast: Contrast) -> schemas.ContrastDetails:
    return schemas.ContrastDetails(
        class_a=contrast.class_a,
        class_b=contrast.class_b,
        difference=contrast.difference,
        difference_without=contrast.difference_without,
        contributions=_rows(contrast.contributions),
        standard_errors=_rows(contrast.standard_errors),
        num_permutations=contrast.num_permutations,
    )


def _near_photographs(class_name: str, neighbours: Sequence[Neighbour]) -> schemas.ClassEvidence:
    return schemas.ClassEvidence(
        class_name=class_name,
        neighbours=[
            schemas.NearPhotograph(image_id=near.image_id, distance=near.distance, thumbnail=_thumbnail(near))
            for near in neighbours
        ],
    )


def _thumbnail(near: Neighbour) -> str | None:
    """Return the thumbnail in the gallery, else one of the file where it still is, as a data URI."""
    if near.thumbnail is not None:
        return _as_uri(near.thumbnail)
    picture = near.picture()
    if picture is None:
        return None
    picture.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=80)
    return _as_uri(file.getvalue())


def _as_uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _rows(values: NDArray[np.floating[Any]]) -> list[list[float]]:
    rows: list[list[float]] = values.tolist()
    return rows


def _counts(values: NDArray[np.floating[Any]]) -> list[list[int]]:
    rows: list[list[int]] = values.round().astype(np.int64).tolist()
    return rows
