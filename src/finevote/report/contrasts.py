"""Why one class and not the other: the mistakes on the page explained, as long as that takes little time."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from finevote.errors import FinevoteError
from finevote.explanation.explained import Contrast
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.report.choose import Mistake
from finevote.report.material import Material

_logger = logging.getLogger(__name__)
MAX_SECONDS = 40.0
_NUM_PERMUTATIONS = 16


def explain_mistakes(
    material: Material, mistakes: Sequence[Mistake], *, max_seconds: float = MAX_SECONDS
) -> dict[int, Contrast]:
    """Return for the rows of mistakes what each patch adds to the named class and takes from the true one.

    The model is run for it; after `max_seconds` no further one is begun. Empty for a model without votes, and where it
    cannot be run, which is warned of.
    """
    shelf = material.shelf
    if shelf is None or not material.has_votes or not mistakes:
        return {}
    found: dict[int, Contrast] = {}
    start = time.monotonic()
    try:
        predictor = Predictor.load(material.folder.path, device="auto")
        with Meter("explain", total=len(mistakes)) as meter:
            for one in mistakes:
                if time.monotonic() - start > max_seconds:
                    break
                contrast = _explain(material, predictor, one)
                if contrast is not None:
                    found[one.row] = contrast
                meter.advance(1)
    except FinevoteError as error:
        _logger.warning("the report has no contrasts of classes: %s", error)
    return found


def _explain(material: Material, predictor: Predictor, one: Mistake) -> Contrast | None:
    shelf, names = material.shelf, material.class_names
    record = None if shelf is None else shelf.records.get(material.predictions.image_ids[one.row])
    if shelf is None or record is None:
        return None
    asked = (names[one.predicted], names[one.true])
    (told,) = predictor.explain_records(shelf.source, [record], contrast=asked, num_permutations=_NUM_PERMUTATIONS)
    return told.contrast
