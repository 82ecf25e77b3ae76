"""An explanation as JSON; docs/explaining.md tells its fields."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.explanation.explained import Contrast, Explanation, VoteMaps
from finevote.explanation.vote_map import area_of_votes

FORMAT_VERSION = 1


def as_record(explanation: Explanation) -> dict[str, Any]:
    """Return an explanation ready for JSON; maps are lists of rows, patches are numbered row by row from 0."""
    view, ranked = explanation.view, explanation.ranked
    found, verdict = explanation.prediction_set, explanation.verdict
    return {
        "format_version": FORMAT_VERSION,
        "image": explanation.image_id,
        "true_class": explanation.true_name,
        "view": {"left": view.left, "top": view.top, "right": view.right, "bottom": view.bottom},
        "is_calibrated": explanation.is_calibrated,
        "top": [
            {"class": name, "probability": probability}
            for name, probability in zip(ranked.class_names, ranked.probabilities, strict=True)
        ],
        "set": None
        if found is None
        else {"coverage": found.coverage, "method": found.method, "classes": list(found.class_names)},
        "unknown": None if verdict is None else verdict._asdict(),
        "votes": _votes(explanation.votes),
        "contrast": None if explanation.contrast is None else _contrast(explanation.contrast),
        "evidence": [
            {
                "class": group.class_name,
                "nearest": [
                    {"image": near.image_id, "class": near.class_name, "distance": near.distance}
                    for near in group.neighbours
                ],
            }
            for group in explanation.evidence
        ],
        "notes": list(explanation.notes),
    }


def _votes(votes: VoteMaps) -> dict[str, Any]:
    ends = np.cumsum(votes.budget)[:-1]
    has_votes = bool(votes.final.sum() > 0)
    return {
        "grid": list(votes.grid),
        "kind": "second vote" if votes.has_second_vote else "selections",
        "final": _rows(votes.final),
        "half_on": area_of_votes(votes.final) if has_votes else None,
        "budget": list(votes.budget),
        "key_tokens": votes.key_picks.tolist(),
        "selected": [part.tolist() for part in np.split(votes.selected, ends)],
        "ballots": [_rows(ballot) for ballot in votes.ballots],
    }


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {
        "class_a": contrast.class_a,
        "class_b": contrast.class_b,
        "difference": contrast.difference,
        "difference_without": contrast.difference_without,
        "contributions": contrast.contributions.tolist(),
        "standard_errors": contrast.standard_errors.tolist(),
        "num_permutations": contrast.num_permutations,
    }


def _rows(counts: NDArray[np.floating[Any]]) -> Sequence[Sequence[int]]:
    """Return counts, which are whole numbers, as such."""
    rows: list[list[int]] = counts.astype(np.int64).tolist()
    return rows
