"""Explanations put together by hand, for what is drawn and told of them."""

from dataclasses import replace

import numpy as np
from PIL import Image

from finevote.explanation.explained import Contrast, Evidence, Explanation, Neighbour, PredictionSet, Verdict, VoteMaps
from finevote.types import Box, Ranked


def some_votes(*, grid=(4, 6), budget=(3, 4, 2), num_heads=3, has_second_vote=True, seed=0):
    rng = np.random.default_rng(seed)
    num_patches, total = grid[0] * grid[1], sum(budget)
    selected = np.concatenate([rng.permutation(num_patches)[:count] for count in budget])
    heads = rng.random((len(budget), num_heads, *grid)) < 0.2
    key_ballots = rng.integers(0, num_heads + 1, total).astype(np.float32) * has_second_vote
    weights = key_ballots if has_second_vote else np.ones(total)
    final = np.bincount(selected, weights=weights, minlength=num_patches).astype(np.float32)
    ballots = heads.sum(axis=1).astype(np.float32)
    positions = np.arange(0, total, 2) if has_second_vote else np.arange(total)
    return VoteMaps(
        grid,
        budget,
        ballots,
        ballots * 2,
        heads,
        selected,
        key_ballots,
        positions,
        final.reshape(grid),
        has_second_vote,
    )


def some_contrast(votes, *, names=("great tit", "blue tit")):
    values = np.where(votes.is_selected(), np.random.default_rng(1).normal(size=votes.grid), 0.0)
    return Contrast(*names, 3.2, 3.2 - float(values.sum()), values, np.abs(values) / 10, 32)


def some_evidence(name, *, with_pictures=True):
    pictures = [Image.new("RGB", (40, 30 + 10 * number), (90, 120, 60)) for number in range(4)]
    return Evidence(
        name,
        tuple(
            Neighbour(f"train/{name}/{number}.jpg", name, 0.1 + number / 10, picture if with_pictures else None)
            for number, picture in enumerate(pictures)
        ),
    )


def some_explanation(*, size=(90, 60), votes=None, **changes):
    """`size` is width and height; `changes` are fields of the explanation."""
    rng = np.random.default_rng(3)
    votes = votes or some_votes()
    names = ("great tit", "blue tit", "coal tit", "marsh tit", "willow tit")
    explanation = Explanation(
        image_id="photos/bird.jpg",
        photograph=Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)),
        view=Box("view", 0.1, 0.05, 0.9, 0.95),
        ranked=Ranked("photos/bird.jpg", names, (0.93, 0.04, 0.02, 0.006, 0.001)),
        is_calibrated=True,
        votes=votes,
        prediction_set=PredictionSet(0.9, "lac", names[:2]),
        verdict=Verdict(False, 0.21, 0.35, "distance", 0.05),
        contrast=some_contrast(votes),
    )
    return replace(explanation, **changes)
