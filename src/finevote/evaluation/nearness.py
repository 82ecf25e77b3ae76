"""What it means for two embeddings to be near; imports no torch, so that what only names a metric needs none."""

from typing import Literal, get_args

from finevote.errors import ArgumentError, suggest

Metric = Literal["euclidean", "cosine"]


def check_metric(metric: str) -> None:
    """Raise ArgumentError unless it is a metric that is known."""
    if metric not in get_args(Metric):
        raise ArgumentError(f"the metric {metric!r} is not known{suggest(metric, get_args(Metric))}")
