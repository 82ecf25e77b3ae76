"""Some of the images, evenly over what there is of each class."""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence

from finevote.errors import ArgumentError
from finevote.types import Record


def some_of_each_class(records: Sequence[Record], *, most: int) -> list[Record]:
    """Return up to `most` images of each class, evenly over those that there are, in their order."""
    rows: dict[int, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        rows[record.label].append(row)
    chosen = {of_class[len(of_class) * n // most] for of_class in rows.values() for n in range(most)}
    return [records[row] for row in sorted(chosen)]


def even_share(records: Sequence[Record], *, max_images: int | None) -> list[Record]:
    """Return at most `max_images` images, None for all, of each class as many or all that it has; in their order.

    Raises:
        ArgumentError: they are fewer than the classes.
    """
    if max_images is None or len(records) <= max_images:
        return list(records)
    counts = Counter(record.label for record in records).values()

    def taken(most: int) -> int:
        return sum(min(count, most) for count in counts)

    most = bisect_right(range(max(counts) + 1), max_images, key=taken) - 1
    if most < 1:
        raise ArgumentError(
            f"max_images={max_images} is fewer than the {len(counts)} classes: allow one image of each class or more"
        )
    return some_of_each_class(records, most=most)
