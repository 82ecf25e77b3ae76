from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.data.subset import even_share
from finevote.errors import ArgumentError
from finevote.types import Record


def records_of(counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [Record(str(number), label) for number, label in enumerate(labels)]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 60))
def test_each_class_has_as_many_as_the_others_or_all_and_no_more_fit(counts, max_images):
    records = records_of(counts)
    if max_images < min(len(counts), len(records)):
        with pytest.raises(ArgumentError, match=rf"max_images={max_images} is fewer than the {len(counts)} classes"):
            even_share(records, max_images=max_images)
        return
    chosen = even_share(records, max_images=max_images)
    found = Counter(record.label for record in chosen)
    most = max(found.values())
    assert chosen == sorted(chosen, key=lambda record: int(record.image_id))
    assert len(chosen) <= max_images
    assert all(found[label] == min(count, most) for label, count in enumerate(counts))
    assert chosen == records or sum(min(count, most + 1) for count in counts) > max_images


def test_without_a_limit_all_are_taken():
    assert even_share(records_of([3, 4]), max_images=None) == records_of([3, 4])
