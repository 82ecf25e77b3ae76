import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.evaluation.intervals import macro_interval, wilson_interval
from finevote.evaluation.shares import grouped_interval, macro_share, share

BOOLEANS = st.lists(st.booleans(), min_size=1, max_size=60)


def width(interval):
    return interval.high - interval.low


def alike(num_groups, size, *, rate, seed=0):
    """Return whether images are right, those of a group all together, and their groups."""
    right = np.random.default_rng(seed).random(num_groups) < rate
    return np.repeat(right, size), np.repeat(np.arange(num_groups), size)


@given(BOOLEANS)
def test_images_by_themselves_have_wilson_s_interval(right):
    found = share(right)
    assert found[:3] == (np.mean(right), *wilson_interval(sum(right), len(right)))
    assert found.method == "Wilson"


def test_groups_of_one_image_are_much_like_no_groups():
    right, groups = alike(400, 1, rate=0.9)
    labels = np.arange(400) % 8
    assert share(right, groups=groups)[:3] == pytest.approx(share(right)[:3], abs=0.002)
    assert macro_share(right, labels, groups=groups)[:3] == pytest.approx(macro_share(right, labels)[:3], abs=0.003)


def test_groups_that_are_all_alike_count_as_one_image_each():
    right, groups = alike(200, 10, rate=0.8)
    assert share(right, groups=groups)[1:3] == pytest.approx(wilson_interval(right[::10].sum(), 200), abs=0.003)


def test_where_all_is_right_the_interval_is_that_of_as_many_images_as_groups():
    right, groups = alike(12, 25, rate=1.1)
    assert share(right, groups=groups)[1:3] == pytest.approx(wilson_interval(12, 12))
    one_group = share(np.ones(50), groups=["a"] * 50)
    assert one_group[1:3] == pytest.approx(wilson_interval(1, 1))


@given(BOOLEANS, st.integers(1, 9), st.integers(0, 9))
def test_the_interval_holds_the_share_and_is_no_narrower_than_that_of_images(right, num_groups, seed):
    rng = np.random.default_rng(seed)
    groups, labels = rng.integers(0, num_groups, len(right)), rng.integers(0, 3, len(right))
    found = share(right, groups=groups)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert width(found) >= width(share(right)) - 1e-12
    macro = macro_share(right, labels, groups=groups)
    assert 0 <= macro.low <= macro.value + 1e-12
    assert macro.value - 1e-12 <= macro.high <= 1


def test_neither_names_nor_order_of_groups_matter():
    right, groups = alike(30, 4, rate=0.7)
    order = np.random.default_rng(0).permutation(120)
    labels = groups % 5
    named = np.array([f"bird {group}" for group in groups])
    first = grouped_interval(right, labels, groups=groups)
    assert grouped_interval(right[order], labels[order], groups=named[order]) == pytest.approx(first)


def test_macro_without_groups_is_the_interval_of_counts():
    right, labels = np.array([1, 1, 0, 1, 0], bool), np.array([0, 0, 0, 2, 2])
    found = macro_share(right, labels)
    assert found.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found[1:3] == macro_interval([2, 0, 1], [3, 0, 2])


@pytest.mark.parametrize("alikeness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("rate", [0.6, 0.9])
def test_whole_groups_cover_the_truth_about_95_times_in_100(alikeness, rate):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(80), 6)
    covered = []
    for _ in range(400):
        own = rng.random(480) < rate
        whole = np.repeat(rng.random(80) < rate, 6)
        right = np.where(rng.random(480) < alikeness, whole, own)
        found = share(right, groups=groups)
        covered.append(found.low <= rate <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.98


def test_a_group_for_each_image_is_needed():
    with pytest.raises(ArgumentError, match="3 images with 2 groups"):
        share([True] * 3, groups=["a", "b"])
    with pytest.raises(ArgumentError, match="0 right of 0 trials"):
        share([])
