"""Whether a server takes requests, and how many it has still to answer."""

from collections.abc import Iterator
from contextlib import contextmanager


class Lifecycle:
    """The state of one process; touched by its event loop only."""

    def __init__(self) -> None:
        self.num_in_flight = 0
        self.is_stopping = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Count a request while the block runs: a stop waits for it."""
        self.num_in_flight += 1
        try:
            yield
        finally:
            self.num_in_flight -= 1

    def stop(self) -> None:
        """Take no new work; what was accepted is finished."""
        self.is_stopping = True
