"""Why one class and not the other: mistakes explained, and the training photographs that they look like."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finevote.bundle.gallery import read_gallery
from finevote.errors import FinevoteError
from finevote.evaluation.evidence import Neighbour, find_evidence
from finevote.evaluation.gallery import Gallery
from finevote.explanation.explained import Contrast
from finevote.predictor import Predictor, find_bundle
from finevote.progress import Meter
from finevote.report.choose import Mistake
from finevote.report.material import Material
from finevote.report.photographs import Training

_logger = logging.getLogger(__name__)
MAX_SECONDS = 25.0
_NUM_PERMUTATIONS = 16


@dataclass(frozen=True, eq=False)
class Told:
    """What is told of a mistake.

    `contrast` is what patches add to the class that was named and take from the true one; `nearest` are the nearest
    training photographs of the one and of the other, None where there is none.
    """

    contrast: Contrast | None = None
    nearest: tuple[Training | None, Training | None] = (None, None)


def explain_mistakes(
    material: Material, mistakes: Sequence[Mistake], *, max_seconds: float = MAX_SECONDS
) -> dict[int, Told]:
    """Return what can be told of mistakes, by their rows.

    The model is run for contrasts and votes; after `max_seconds` it is not asked any further. What cannot be had, as
    without a gallery in the bundle or without votes, is left out.
    """
    told = {one.row: Told(nearest=pair) for one, pair in _find_nearest(material, mistakes).items()}
    if not material.has_votes or material.shelf is None or not mistakes:
        return told
    start = time.monotonic()
    try:
        predictor = Predictor.load(material.folder.path, device="auto")
        with Meter("explain", total=len(mistakes)) as meter:
            for one in mistakes:
                if time.monotonic() - start > max_seconds:
                    break
                told[one.row] = _with_model(material, predictor, one, told.get(one.row, Told()))
                meter.advance(1)
    except FinevoteError as error:
        _logger.warning("the report has no contrasts of classes: %s", error)
    return told


def _with_model(material: Material, predictor: Predictor, one: Mistake, told: Told) -> Told:
    """Return what is told with the contrast of the classes and the votes of the training photographs."""
    shelf, names = material.shelf, material.class_names
    record = None if shelf is None else shelf.records.get(material.predictions.image_ids[one.row])
    contrast = None
    if shelf is not None and record is not None:
        asked = (names[one.predicted], names[one.true])
        found = predictor.explain_records(shelf.source, [record], contrast=asked, num_permutations=_NUM_PERMUTATIONS)
        contrast = found[0].contrast
    first, second = (some and replace(some, votes=predictor.explain(some.image).votes.final) for some in told.nearest)
    return Told(contrast, (first, second))


def _find_nearest(
    material: Material, mistakes: Sequence[Mistake]
) -> dict[Mistake, tuple[Training | None, Training | None]]:
    """Return for each mistake the nearest training photographs of the class that was named and of the true one."""
    embeddings, gallery = material.predictions.embeddings, _read_gallery(material)
    if gallery is None or embeddings is None or not mistakes:
        return {}
    rows = np.array([one.row for one in mistakes])
    first_two = np.zeros((len(mistakes), len(material.class_names)))  # the class that was named, then the true one
    first_two[np.arange(len(rows)), [one.predicted for one in mistakes]] = 2.0
    first_two[np.arange(len(rows)), [one.true for one in mistakes]] = 1.0
    names = [material.predictions.image_ids[row] for row in rows]
    found = find_evidence(
        gallery, first_two, embeddings[rows], class_names=material.class_names, num_each=1, names=names
    )
    return {
        one: (_show(evidence.of_predicted), _show(evidence.of_runner_up))
        for one, evidence in zip(mistakes, found, strict=True)
    }


def _read_gallery(material: Material) -> Gallery | None:
    """Return the gallery of the bundle, if it is one of the model as it predicted."""
    try:
        gallery = read_gallery(find_bundle(material.folder.path))
    except FinevoteError as error:
        _logger.warning("the report has no training photographs: %s", error)
        return None
    return gallery if gallery is not None and gallery.keep_rate == material.manifest.keep_rate else None


def _show(neighbours: Sequence[Neighbour]) -> Training | None:
    for near in neighbours:
        if (picture := near.picture()) is not None:
            return Training(picture, near.class_name, near.distance)
    return None
