"""What a report is made of, beside its headline: one kind of figures each."""

from collections.abc import Sequence
from typing import Any, Protocol

from rich.console import RenderableType


class Section(Protocol):
    """Figures of one kind about a split, for JSON and for people."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures ready for JSON; shares are fractions."""

    def table(self) -> RenderableType | None:
        """Return the figures as `rich` prints them; None where a note says it all."""

    def notes(self) -> Sequence[str]:
        """Return what is to be known of the figures, a sentence each."""
