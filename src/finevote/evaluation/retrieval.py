"""Are the nearest training images of the right class? A split's images as queries against the bundle's gallery."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.evaluation.figure import Figure, percent, share_of
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.means import mean_interval
from finevote.evaluation.metrics import Labels, Rates
from finevote.evaluation.nearness import Metric
from finevote.evaluation.rows import take_rows
from finevote.evaluation.search import Rows, Vectors, ranked_rows
from finevote.types import Predictions

Flags = NDArray[np.bool_]


class Ranks(NamedTuple):
    """How each query's own class is ranked: the place (m,) of the first image of it, from 1, and precision (m,).

    `precision` is the average precision over all images of its class: the mean, over these, of the share of its class
    among the images up to there. Where the gallery has none of its class, the place is 0 and the precision NaN.
    """

    first: Rows
    precision: Rates


@dataclass(frozen=True)
class Retrieval:
    """How well a split's images find training images of their class, among the `num_gallery` that the bundle has.

    `recall_at_1` and `recall_at_5` are the shares of queries with an image of their class among the 1 and the 5
    nearest, `mean_average_precision` is over all images of their class. A query that is in the gallery, or whose very
    file is, does not find itself: `num_themselves` of them. Left out are `num_left_out` queries of whose class the
    gallery has no other image.
    """

    num_queries: int
    num_gallery: int
    metric: Metric
    recall_at_1: Figure
    recall_at_5: Figure
    mean_average_precision: Figure
    num_themselves: int = 0
    num_left_out: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value._asdict() if isinstance(value, Figure) else value for name, value in values.items()}

    def table(self) -> Table:
        """Return the figures as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column(f"found among {self.num_gallery:,} training images (95%)", overflow="fold")
        table.add_column("", justify="right", overflow="fold")
        table.add_row("one of its class nearest (recall at 1)", percent(self.recall_at_1))
        table.add_row("among the 5 nearest (recall at 5)", percent(self.recall_at_5))
        table.add_row("mean average precision", percent(self.mean_average_precision))
        return table

    def notes(self) -> list[str]:
        """Return which queries are counted otherwise."""
        notes = []
        if self.num_themselves:
            notes.append(f"images that are in the gallery, and do not find themselves there: {self.num_themselves:,}")
        if self.num_left_out:
            notes.append(f"images of whose class the gallery has no other, left out of that: {self.num_left_out:,}")
        return notes


def rank_own_class(
    bank: Vectors,
    bank_labels: Labels,
    queries: Vectors,
    labels: Labels,
    *,
    metric: Metric = "euclidean",
    excluded: Rows | None = None,
) -> Ranks:
    """Return how images of each query's class are ranked by their distance to it, in a bounded memory.

    Args:
        bank: (n, D).
        bank_labels: (n,) their classes.
        queries: (m, D).
        labels: (m,) their classes.
        metric: of distances.
        excluded: (m, e) rows of the bank that a query must not find, -1 for none.

    Raises:
        ArgumentError: as `ranked_rows`.
    """
    first, precision = np.zeros(len(queries), np.int64), np.full(len(queries), np.nan)
    for some, rows in ranked_rows(bank, queries, metric=metric, excluded=excluded):
        hits = (bank_labels[rows] == labels[some, None]) & (rows >= 0)  # (q, n)
        query, place = np.nonzero(hits)  # of every hit, in the order of queries, then of places
        counts = hits.sum(axis=1)
        starts = np.cumsum(counts) - counts
        shares = (np.arange(len(query)) - starts[query] + 1) / (place + 1)
        found = counts > 0
        first[some] = np.where(found, hits.argmax(axis=1) + 1, 0)
        with np.errstate(invalid="ignore"):
            precision[some] = np.bincount(query, weights=shares, minlength=len(counts)) / counts
    return Ranks(first, precision)


def measure_retrieval(
    predictions: Predictions, gallery: Gallery | None, *, seen: Mapping[str, str] | None = None
) -> Retrieval | None:
    """Return the retrieval figures of a split; None without a gallery, embeddings, or queries that can find anything.

    Args:
        predictions: of the split, by the model of the gallery at the gallery's keep rate.
        gallery: of the bundle.
        seen: images of the split whose very file the model was fitted to, to the id of that one.
    """
    if gallery is None or predictions.embeddings is None:
        return None
    others = [(seen or {}).get(image_id) for image_id in predictions.image_ids]
    excluded = np.stack([gallery.find_rows(predictions.image_ids), gallery.find_rows(others)], axis=1)  # (m, 2)
    ranks = rank_own_class(
        gallery.embeddings,
        gallery.labels,
        predictions.embeddings,
        predictions.labels,
        metric=gallery.metric,
        excluded=excluded,
    )
    rows = np.flatnonzero(ranks.first)
    if not len(rows):
        return None
    counted, first = take_rows(predictions, rows), ranks.first[rows]
    return Retrieval(
        num_queries=len(rows),
        num_gallery=len(gallery.labels),
        metric=gallery.metric,
        recall_at_1=share_of(first <= 1, counted),
        recall_at_5=share_of(first <= 5, counted),
        mean_average_precision=_mean(ranks.precision[rows], counted),
        num_themselves=int((excluded[rows] >= 0).any(axis=1).sum()),
        num_left_out=len(ranks.first) - len(rows),
    )


def _mean(precision: Rates, predictions: Predictions) -> Figure:
    """Return the mean precision with the interval of what is missing from 1, which is skewed."""
    low, high = mean_interval(1 - precision, groups=predictions.groups, reach=1.0)
    return Figure(float(precision.mean()), max(0.0, 1 - high), min(1.0, 1 - low))
