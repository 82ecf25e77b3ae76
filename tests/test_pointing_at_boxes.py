"""Wherever a published set has parts or boxes, `evaluate` tells how far the votes fall in them."""

import io

import numpy as np
import pytest
from rich.console import Console

from finevote.data.opening import open_source
from finevote.evaluation.predictions import load_predictions
from finevote.measure.evaluate import evaluate
from tests.data.miniatures import make_miniature
from tests.tiny import write_run

# Set, split, whether it has parts and subjects there; the miniatures' photographs are 40 x 30 px.
SUBJECT_PX = (8, 6, 28, 21)
CASES = [("cub200", "test", True, True), ("dogs", "test", False, True), ("pets", "val", True, False)]


def naive(predictions, boxes_px):
    """Rasterise boxes on the photograph, sixty points a side of each of 4 x 4 patches, of the crop of 32 of 43 px."""
    side = (np.arange(240) + 0.5) / 240
    seen = (6 + 32 * side) / 43  # the centre crop, as a fraction of the photograph
    inside = np.zeros((240, 240), bool)
    for left, top, right, bottom in boxes_px:
        rows, columns = (seen >= top / 30) & (seen < bottom / 30), (seen >= left / 40) & (seen < right / 40)
        inside |= rows[:, None] & columns
    covered = inside.reshape(4, 60, 4, 60).mean(axis=(1, 3)).ravel()
    votes = predictions.final_votes.astype(np.float64)
    shares = (votes * covered).sum(1) / votes.sum(1)
    centres = inside[30::60, 30::60].ravel()
    return shares.mean(), covered.mean(), centres[predictions.most_voted].mean()


@pytest.mark.parametrize(("name", "split", "has_parts", "has_subject"), CASES, ids=[case[0] for case in CASES])
def test_votes_are_pointed_at_what_the_set_knows(tmp_path, name, split, has_parts, has_subject):
    data = f"{name}@{make_miniature(name, tmp_path / 'set').tree}"
    class_names = open_source(data, splits=("train",)).class_names
    run = write_run(tmp_path / "run", data=data, class_names=class_names)
    report = evaluate(run, split=split)
    predictions, _ = load_predictions(run / "evaluation" / split / "predictions.npz")
    for wanted, figure, game, boxes in (
        (has_parts, report.pointing, report.pointing_game, part_boxes(name)),
        (has_subject, report.on_subject, report.subject_game, [SUBJECT_PX]),
    ):
        if not wanted:
            assert figure is None
            assert game is None
            continue
        votes, area, hits = naive(predictions, boxes)
        assert figure.num_images == game.num_images == report.num_images
        assert (figure.vote_share, figure.area_share) == pytest.approx((votes, area), abs=0.02)
        assert game.area_share == pytest.approx(figure.area_share)
        assert game.hit_share == pytest.approx(hits)
    console = Console(width=200, file=io.StringIO())
    console.print(report.table())
    told = console.file.getvalue()
    assert ("lies in the telling parts in" in told, "lies on the subject in" in told) == (has_parts, has_subject)


def part_boxes(name):
    """Return the parts of a miniature: a point of CUB is a square, a tenth of the subject's longer side."""
    return [(9, 11, 11, 13)] if name == "cub200" else [SUBJECT_PX]
