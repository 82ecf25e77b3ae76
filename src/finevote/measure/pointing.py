"""Where a split's final votes fall: in the boxes that its data set knows, of telling parts and of whole subjects."""

from collections.abc import Sequence
from typing import Any

from finevote.evaluation.pointing import (
    PointingFigure,
    PointingGame,
    boxes_in_view,
    play_pointing_game,
    share_in_boxes,
    summarize,
)
from finevote.types import Box, Predictions, Preprocessing, Regions

Boxes = Sequence[Sequence[Box]]


def pointing_figures(
    predictions: Predictions, regions: Sequence[Regions], preprocessing: Preprocessing
) -> dict[str, Any]:
    """Return the pointing figures of a `Measurement` by name, for the regions of each image."""
    parts = [found.parts for found in regions]
    subjects = [() if found.subject is None else (found.subject,) for found in regions]
    return {
        "pointing": point(predictions, parts, preprocessing),
        "on_subject": point(predictions, subjects, preprocessing),
        "pointing_game": play(predictions, parts, preprocessing),
        "subject_game": play(predictions, subjects, preprocessing),
    }


def point(predictions: Predictions, boxes: Boxes, preprocessing: Preprocessing) -> PointingFigure | None:
    """Return how far final votes fall in each image's boxes; None without votes or boxes."""
    if predictions.final_votes is None or predictions.grid is None:
        return None
    in_view = [boxes_in_view(image_boxes, preprocessing) for image_boxes in boxes]
    return summarize(share_in_boxes(predictions.final_votes, predictions.grid, in_view))


def play(predictions: Predictions, boxes: Boxes, preprocessing: Preprocessing) -> PointingGame | None:
    """Return how often the most-voted patch lies in one of an image's boxes; None without final votes or boxes."""
    if predictions.most_voted is None or predictions.grid is None:
        return None
    in_view = [boxes_in_view(image_boxes, preprocessing) for image_boxes in boxes]
    return play_pointing_game(predictions.most_voted, predictions.grid, in_view, groups=predictions.groups)
