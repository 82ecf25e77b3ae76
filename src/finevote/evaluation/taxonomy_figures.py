"""How right and how sure a model is at each level of a taxonomy, and what is answered where only the genus is sure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from finevote.evaluation.calibrator import Calibration, told_probabilities
from finevote.evaluation.figure import Figure, number, percent, share_of, with_intervals
from finevote.evaluation.metrics import Rates
from finevote.evaluation.rows import take_rows
from finevote.evaluation.selective import risk_area, risk_curve
from finevote.evaluation.selective_figures import RiskPoint, thin_curve
from finevote.evaluation.taxonomy import Level, deepest_sure, levels_of
from finevote.types import Predictions, Taxonomy

SURE = 0.9


class LevelFigures(NamedTuple):
    """How one level fared.

    `accuracy` is the share of images whose likeliest taxon is right, `area` that under the curve of risk over coverage,
    of which `curve` has up to 100 points. `answered` is the share of images for which this is the deepest level that is
    sure, `error` the share of wrong answers among these, None where there are none.
    """

    level: str
    num_taxa: int
    accuracy: Figure
    area: Figure
    curve: tuple[RiskPoint, ...]
    answered: Figure
    error: Figure | None


@dataclass(frozen=True)
class TaxonomyFigures:
    """The figures of one split, level by level from the class upwards; `sure` is the probability that answers take.

    `error` is the share of wrong answers among all that are given, None where none are.
    """

    levels: tuple[LevelFigures, ...]
    answered: Figure
    error: Figure | None
    sure: float = SURE

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON."""
        rows = [
            {
                **{name: _plain(value) for name, value in row._asdict().items()},
                "curve": [point._asdict() for point in row.curve],
            }
            for row in self.levels
        ]
        return {"levels": rows, "answered": _plain(self.answered), "error": _plain(self.error), "sure": self.sure}

    def table(self) -> Table:
        """Return the figures as `rich` prints them."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("level by level (95%)", overflow="fold")
        table.add_column("", justify="right", overflow="fold")
        for row in self.levels:
            table.add_row(f"{row.level}, one of {row.num_taxa:,}: right", percent(row.accuracy))
            table.add_row("    area under risk over coverage", number(row.area, digits=4))
            table.add_row(f"    deepest that is {self.sure:.0%} sure", percent(row.answered))
            if row.error is not None:
                table.add_row("    error among these", percent(row.error))
        table.add_row(f"any level {self.sure:.0%} sure", percent(self.answered))
        if self.error is not None:
            table.add_row("    error among these", percent(self.error))
        return table

    def notes(self) -> list[str]:
        """Return nothing: the table says it all."""
        return []


def measure_taxonomy(
    predictions: Predictions, calibration: Calibration | None, taxonomy: Taxonomy | None, *, sure: float = SURE
) -> TaxonomyFigures | None:
    """Return the figures of a split; None without a taxonomy.

    Args:
        predictions: of the split; where they have groups, intervals draw whole ones.
        calibration: of the model; None where there is none.
        taxonomy: of the classes.
        sure: the probability that an answer takes.
    """
    if taxonomy is None:
        return None
    labels, probabilities = predictions.labels, told_probabilities(predictions.logits, calibration)
    levels = levels_of(taxonomy)
    depths, taxa = deepest_sure(probabilities, levels, sure=sure)
    is_right = np.zeros(len(labels), np.bool_)
    for depth, level in enumerate(levels):
        here = depths == depth
        is_right[here] = taxa[here] == level.members[labels[here]]
    return TaxonomyFigures(
        levels=tuple(
            _measure_level(level, probabilities, predictions, answered=depths == depth, is_right=is_right)
            for depth, level in enumerate(levels)
        ),
        answered=share_of(depths >= 0, predictions),
        error=_error_among(depths >= 0, is_right, predictions),
        sure=sure,
    )


def _measure_level(
    level: Level,
    probabilities: Rates,
    predictions: Predictions,
    *,
    answered: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
) -> LevelFigures:
    right = level.is_right(probabilities, predictions.labels)
    sure = level.probabilities(probabilities).max(axis=1)

    def statistic(rows: NDArray[np.int64]) -> Sequence[float]:
        return [risk_area(sure[rows], right[rows])]

    return LevelFigures(
        level=level.name,
        num_taxa=len(level.taxa),
        accuracy=share_of(right, predictions),
        area=with_intervals(statistic, predictions)[0],
        curve=thin_curve(risk_curve(sure, right)),
        answered=share_of(answered, predictions),
        error=_error_among(answered, is_right, predictions),
    )


def _error_among(answered: NDArray[np.bool_], is_right: NDArray[np.bool_], predictions: Predictions) -> Figure | None:
    rows = np.flatnonzero(answered)
    return share_of(~is_right[rows], take_rows(predictions, rows)) if len(rows) else None


def _plain(value: Any) -> Any:
    return value._asdict() if isinstance(value, Figure) else value
