"""Do the votes fall where the classes differ? The votes' share in known boxes, and the most voted patch."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError
from finevote.evaluation.shares import share
from finevote.types import Box, Preprocessing


class PointingShares(NamedTuple):
    """Per image (n,) in float64: share of votes inside the boxes (NaN where nothing was voted for), and of the area."""

    votes: NDArray[np.float64]
    area: NDArray[np.float64]


class PointingFigure(NamedTuple):
    """Means over the `num_images` images that have both votes and a box in view; lift = vote_share / area_share."""

    vote_share: float
    area_share: float
    lift: float
    num_images: int


class PointingGame(NamedTuple):
    """How often the most-voted patch lies in a box, over `num_images` images with votes and a box in view.

    `hit_share` has the 95% interval `low` to `high`; `lift` is how many times the boxes' mean `area_share` that is, and
    its interval is that of the hits, the area being taken as known.
    """

    hit_share: float
    low: float
    high: float
    area_share: float
    lift: float
    lift_low: float
    lift_high: float
    num_images: int


def share_in_boxes(
    final_votes: NDArray[np.floating[Any]], grid: tuple[int, int], boxes: Sequence[Sequence[Box]]
) -> PointingShares:
    """Return the shares for votes (n, P) over `grid` (rows, columns) and each image's boxes, in the model's view.

    A patch that a box covers in part counts by the covered fraction; overlapping boxes are not counted twice.

    Raises:
        ArgumentError: the grid or the number of box lists does not fit the votes.
    """
    rows, columns = grid
    if final_votes.shape != (len(boxes), rows * columns):
        raise ArgumentError(f"votes {final_votes.shape} do not fit {len(boxes)} images on a grid of {rows}x{columns}")
    votes = final_votes.astype(np.float64)
    covered = np.stack([cover_fractions(grid, image_boxes).ravel() for image_boxes in boxes])  # (n, P)
    totals = votes.sum(axis=1)
    inside = np.divide((votes * covered).sum(axis=1), totals, out=np.full(len(boxes), np.nan), where=totals > 0)
    return PointingShares(votes=inside, area=covered.mean(axis=1))


def summarize(shares: PointingShares) -> PointingFigure | None:
    """Return the means over images with votes and a box in view, or None if there is no such image."""
    usable = np.isfinite(shares.votes) & (shares.area > 0)
    if not usable.any():
        return None
    votes, area = float(shares.votes[usable].mean()), float(shares.area[usable].mean())
    return PointingFigure(votes, area, votes / area, int(usable.sum()))


def play_pointing_game(
    most_voted: NDArray[np.integer[Any]],
    grid: tuple[int, int],
    boxes: Sequence[Sequence[Box]],
    *,
    groups: Sequence[Hashable] | NDArray[np.str_] | None = None,
) -> PointingGame | None:
    """Return the pointing game (Zhang et al. 2018): does the strongest point lie in a box?

    Hits are counted over images, and without the published tolerance of 15 px around a box. None where no image has a
    box in view.

    Args:
        most_voted: (n,) one patch number over `grid` for each image; its centre is the point.
        grid: rows, columns of patches.
        boxes: of each image, in the model's view.
        groups: (n,) whom each image shows, taken whole by the interval; None where each stands by itself.

    Raises:
        ArgumentError: there are not as many patches as box lists.
    """
    if most_voted.shape != (len(boxes),):
        raise ArgumentError(f"patches of shape {most_voted.shape} do not fit {len(boxes)} images")
    areas = np.array([cover_fractions(grid, image_boxes).mean() for image_boxes in boxes])  # (n,)
    usable = areas > 0
    if not usable.any():
        return None
    rows, columns = np.divmod(most_voted, grid[1])
    points = zip((columns + 0.5) / grid[1], (rows + 0.5) / grid[0], boxes, strict=True)
    is_hit = np.array([_lies_in_one(x, y, image_boxes) for x, y, image_boxes in points])
    hits = share(is_hit[usable], groups=None if groups is None else np.asarray(groups)[usable])
    area = float(areas[usable].mean())
    return PointingGame(
        hits.value,
        hits.low,
        hits.high,
        area_share=area,
        lift=hits.value / area,
        lift_low=hits.low / area,
        lift_high=hits.high / area,
        num_images=int(usable.sum()),
    )


def cover_fractions(grid: tuple[int, int], boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Return the fraction of every patch (rows, columns) that the union of the boxes covers, exactly."""
    rows, columns = grid
    if not boxes:
        return np.zeros(grid)
    sides = np.clip([(box.top, box.bottom, box.left, box.right) for box in boxes], 0.0, 1.0)
    # Cut the view along every patch and box side: each cell then lies wholly inside or outside of each of them.
    y = np.unique(np.concatenate([np.arange(rows + 1) / rows, sides[:, 0], sides[:, 1]]))
    x = np.unique(np.concatenate([np.arange(columns + 1) / columns, sides[:, 2], sides[:, 3]]))
    in_rows = (sides[:, :1] <= y[:-1]) & (y[1:] <= sides[:, 1:2])  # (boxes, cells down)
    in_columns = (sides[:, 2:3] <= x[:-1]) & (x[1:] <= sides[:, 3:])  # (boxes, cells across)
    inside = (in_rows[:, :, None] & in_columns[:, None, :]).any(axis=0)
    areas = inside * np.outer(np.diff(y), np.diff(x))
    first_row = np.searchsorted(y, np.arange(rows) / rows)
    first_column = np.searchsorted(x, np.arange(columns) / columns)
    per_patch = np.add.reduceat(np.add.reduceat(areas, first_row, axis=0), first_column, axis=1)
    return np.asarray(per_patch * rows * columns)


def boxes_in_view(boxes: Sequence[Box], preprocessing: Preprocessing) -> list[Box]:
    """Return the boxes as the model sees them: fractions of the centre crop, what lies outside of it cut off."""
    bottom_px, right_px = preprocessing.resize
    rows, columns = preprocessing.image_size
    top_px, left_px = round((bottom_px - rows) / 2), round((right_px - columns) / 2)
    moved = []
    for box in boxes:
        left, right = (np.clip((side * right_px - left_px) / columns, 0.0, 1.0) for side in (box.left, box.right))
        top, bottom = (np.clip((side * bottom_px - top_px) / rows, 0.0, 1.0) for side in (box.top, box.bottom))
        if left < right and top < bottom:
            moved.append(Box(box.name, float(left), float(top), float(right), float(bottom)))
    return moved


def _lies_in_one(x: float, y: float, boxes: Sequence[Box]) -> bool:
    return any(box.left <= x < box.right and box.top <= y < box.bottom for box in boxes)
