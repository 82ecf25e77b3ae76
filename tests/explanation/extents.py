"""Where things lie on a drawn figure."""

from collections.abc import Sequence
from itertools import combinations

from matplotlib.artist import Artist
from matplotlib.text import Text


def overlapping(texts: Sequence[Text]) -> list[tuple[str, str]]:
    """Return the pairs of texts that are drawn over each other."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [(one, two) for (one, first), (two, second) in combinations(boxes, 2) if first.overlaps(second)]


def is_within(inner: Artist, outer: Artist) -> bool:
    """Tell whether one thing is drawn wholly inside another."""
    one, two = inner.get_window_extent(), outer.get_window_extent()
    return bool(one.x0 >= two.x0 and one.y0 >= two.y0 and one.x1 <= two.x1 and one.y1 <= two.y1)
