import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import recall_score

from finevote.errors import ArgumentError
from finevote.evaluation.paired import (
    class_changes,
    hierarchical_bootstrap,
    holm,
    mean_over_units,
    paired_bootstrap,
    paired_test,
)

pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60)


def draw_pair(rng, n, *, lost, gained, both=0.6):
    """Return two rows of right answers where the first alone is right in `lost` of images, the second in `gained`."""
    kinds = rng.choice(4, size=n, p=[both, lost, gained, 1 - both - lost - gained])
    return np.isin(kinds, (0, 1)), np.isin(kinds, (0, 2))


@given(pairs)
def test_mcnemar_is_the_doubled_binomial_tail(rows):
    first, second = np.array(rows).T
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    assert paired_test(first, second) == (b, c, pytest.approx(min(1.0, 2 * tail)))


@given(pairs)
def test_exchanging_the_two_exchanges_what_is_said_of_them(rows):
    first, second = np.array(rows).T
    here, there = paired_test(first, second), paired_test(second, first)
    assert (here.only_first, here.only_second, here.p_value) == (there.only_second, there.only_first, there.p_value)
    one = paired_bootstrap(first, second, seed=0, num_draws=500)
    assert one.low <= one.value <= one.high
    assert one.value == pytest.approx(-paired_bootstrap(second, first, seed=0, num_draws=500).value)


def test_a_large_sample_agrees_with_the_bootstrap_of_scipy():
    first, second = draw_pair(np.random.default_rng(0), 2000, lost=0.05, gained=0.1)
    ours = paired_bootstrap(first, second, seed=1)
    oracle = stats.bootstrap(
        (second.astype(float) - first,), np.mean, n_resamples=4000, batch=500, rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((oracle.low, oracle.high), abs=1.2e-3)


@pytest.mark.parametrize("n", [50, 500, 5000])
@pytest.mark.parametrize(("lost", "gained"), [(0.1, 0.1), (0.05, 0.1), (0.1, 0.2)])
def test_the_interval_covers_the_truth_about_95_times_in_100(n, lost, gained):
    rng = np.random.default_rng(0)
    drawn = [draw_pair(rng, n, lost=lost, gained=gained) for _ in range(600)]
    intervals = [paired_bootstrap(*pair, seed=seed, num_draws=1000) for seed, pair in enumerate(drawn)]
    covered = np.mean([found.low <= gained - lost <= found.high for found in intervals])
    assert 0.93 <= covered <= 0.97


def test_equally_good_classifiers_are_told_apart_in_at_most_5_of_100():
    rng = np.random.default_rng(0)
    p_values = [paired_test(*draw_pair(rng, 500, lost=0.05, gained=0.05)).p_value for _ in range(1000)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.05


grouped_pairs = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abcdefgh")), min_size=1, max_size=60)


@given(grouped_pairs)
def test_of_groups_it_counts_every_way_to_exchange_the_two_within_groups(rows):
    first, second = np.array([row[:2] for row in rows]).T
    groups = [row[2] for row in rows]
    sums = [sum(int(b) - int(a) for a, b, group in rows if group == name) for name in sorted(set(groups))]
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    found = paired_test(first, second, groups=groups)
    assert found.p_value == pytest.approx(np.mean(np.array(totals) >= abs(sum(sums))))
    assert found[:2] == paired_test(first, second)[:2]


def test_of_groups_it_is_the_permutation_test_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(10):
        first, second = draw_pair(rng, 60, lost=0.1, gained=0.25)
        groups = rng.integers(11, size=60).astype(str)
        sums = [float((second[groups == name].astype(int) - first[groups == name]).sum()) for name in set(groups)]
        oracle = stats.permutation_test(
            (sums, np.zeros(len(sums))), lambda a, b: (a - b).sum(), permutation_type="samples", n_resamples=np.inf
        )
        assert paired_test(first, second, groups=groups).p_value == pytest.approx(oracle.pvalue)


def test_of_many_groups_it_comes_to_the_chi_squared_of_clustered_pairs():
    rng = np.random.default_rng(0)
    first, second = draw_pair(rng, 20_000, lost=0.1, gained=0.104)
    groups = rng.integers(4000, size=20_000).astype(str)
    change = second.astype(int) - first
    sums = np.bincount(groups.astype(int), weights=change)
    expected = stats.chi2.sf(sums.sum() ** 2 / (sums**2).sum(), 1)
    assert paired_test(first, second, groups=groups).p_value == pytest.approx(expected, abs=0.01)


def test_groups_of_one_image_are_images():
    first, second = draw_pair(np.random.default_rng(0), 200, lost=0.05, gained=0.1)
    assert paired_test(first, second, groups=np.arange(200).astype(str)) == paired_test(first, second)


@pytest.mark.parametrize(("num_groups", "sizes"), [(12, (4, 4)), (60, (1, 20)), (300, (1, 6))])
def test_equal_classifiers_are_told_apart_by_groups_in_at_most_5_of_100(num_groups, sizes):
    """Most images of a subject are named alike, so that McNemar's test of images sees evidence where there is none."""
    rng = np.random.default_rng(0)
    told_apart = np.zeros(2)
    for _ in range(1000):
        members = np.repeat(np.arange(num_groups), rng.integers(sizes[0], sizes[1] + 1, num_groups))
        of_group = np.stack(draw_pair(rng, num_groups, lost=0.2, gained=0.2))[:, members]
        of_image = np.stack(draw_pair(rng, len(members), lost=0.2, gained=0.2))
        first, second = np.where(rng.random(len(members)) < 0.8, of_group, of_image)
        for number, groups in enumerate((members.astype(str), None)):
            told_apart[number] += paired_test(first, second, groups=groups).p_value < 0.05
    assert told_apart[0] <= 50 + 2 * 7  # two standard deviations of 1,000 tosses at 5%
    assert told_apart[1] >= 150


def test_a_better_classifier_is_told_by_groups():
    rng = np.random.default_rng(0)
    pairs = [[np.repeat(right, 5) for right in draw_pair(rng, 200, lost=0.05, gained=0.2)] for _ in range(100)]
    groups = np.repeat(np.arange(200), 5).astype(str)
    assert sum(paired_test(*pair, groups=groups).p_value < 0.05 for pair in pairs) >= 95


def test_a_classifier_beside_itself_makes_no_difference_but_keeps_an_interval():
    right = np.arange(100) < 90
    found = paired_bootstrap(right, right, seed=0)
    assert found.value == 0
    assert -0.05 < found.low < 0 < found.high < 0.05
    assert paired_test(right, right) == (0, 0, 1.0)


@pytest.mark.parametrize("n", [50, 500, 5000])
def test_the_interval_of_macro_accuracies_covers_the_truth(n):
    """Classes are of uneven size, and the second classifier gains in the rare ones alone."""
    rng = np.random.default_rng(0)
    sizes = np.array([0.4, 0.3, 0.2, 0.1])
    gains = np.array([0.05, 0.05, 0.15, 0.3])
    covered = 0
    for seed in range(400):
        labels = rng.choice(4, size=n, p=sizes)
        chance = rng.random(n)
        first, second = chance < 0.6, (chance < 0.55) | (chance > 1 - gains[labels])
        found = paired_bootstrap(first, second, seed=seed, labels=labels, num_draws=500)
        covered += found.low <= gains.mean() - 0.05 <= found.high
    assert 0.92 <= covered / 400 <= 0.985


def test_with_labels_the_difference_is_that_of_macro_accuracies():
    rng = np.random.default_rng(0)
    first, second = draw_pair(rng, 300, lost=0.1, gained=0.2)
    labels = rng.choice(5, size=300, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    expected = recall_score(labels, np.where(second, labels, -1), average=None, labels=range(5)).mean()
    expected -= recall_score(labels, np.where(first, labels, -1), average=None, labels=range(5)).mean()
    assert paired_bootstrap(first, second, seed=0, labels=labels).value == pytest.approx(expected)


def test_where_classes_are_alike_in_size_both_accuracies_differ_alike():
    first, second = draw_pair(np.random.default_rng(0), 60, lost=0.1, gained=0.2)
    groups = np.repeat(np.arange(20), 3).astype(str)
    for options in ({}, {"groups": groups}):
        macro = paired_bootstrap(first, second, seed=3, labels=np.arange(60) % 4, **options)
        assert macro == pytest.approx(paired_bootstrap(first, second, seed=3, **options))


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match=r"labels \(1,\) must be one for each of 2 images"):
        paired_bootstrap([True, False], [True, True], seed=0, labels=[1])


def test_images_of_one_subject_count_as_one():
    first, second = draw_pair(np.random.default_rng(0), 40, lost=0.1, gained=0.2)
    repeated = [np.repeat(right, 25) for right in (first, second)]
    groups = [f"bird {number}" for number in range(40) for _ in range(25)]
    alone, together = paired_bootstrap(first, second, seed=3), paired_bootstrap(*repeated, seed=3, groups=groups)
    assert together == pytest.approx(alone)
    assert together.num_units == 40


def test_groups_cover_where_images_alone_do_not():
    rng = np.random.default_rng(0)
    groups = [str(number) for number in range(60) for _ in range(8)]
    covered = np.zeros(2)
    for seed in range(300):
        pair = [np.repeat(right, 8) for right in draw_pair(rng, 60, lost=0.15, gained=0.15)]
        for number, grouping in enumerate((groups, None)):
            found = paired_bootstrap(*pair, seed=seed, groups=grouping, num_draws=500)
            covered[number] += found.low <= 0 <= found.high
    assert covered[0] / 300 >= 0.92
    assert covered[1] / 300 <= 0.75


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = rng.random((4, 400)) < 0.8
    apart = rng.random((4, 400)) < np.array([[0.65], [0.75], [0.85], [0.95]])
    steady, wild = (hierarchical_bootstrap(rows, seed=0) for rows in (alike, apart))
    assert wild.high - wild.low > 3 * (steady.high - steady.low)
    assert wild.seed_sd == pytest.approx(apart.mean(axis=1).std(ddof=1))


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize("spread", [0.05, 0.5])
def test_two_recipes_of_one_kind_compare_as_equal_in_at_least_95_of_100(num_seeds, spread):
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(150):
        ease = rng.normal(1.5, 1.5, 300)
        sets = [
            rng.random((num_seeds, 300)) < 1 / (1 + np.exp(-ease - rng.normal(0, spread, (num_seeds, 1)))) for _ in "ab"
        ]
        found = hierarchical_bootstrap(*sets, seed=seed, num_draws=500)
        covered += found.low <= 0 <= found.high
    assert covered / 150 >= 0.95


def test_the_p_value_is_below_5_percent_where_the_interval_leaves_out_zero():
    rng = np.random.default_rng(0)
    for gap in np.linspace(0, 0.2, 15):
        found = hierarchical_bootstrap(rng.random((3, 300)) < 0.6, rng.random((3, 300)) < 0.6 + gap, seed=0)
        assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


def test_one_seed_each_has_no_spread_between_seeds():
    rng = np.random.default_rng(0)
    found = hierarchical_bootstrap(rng.random((1, 300)) < 0.6, rng.random((1, 300)) < 0.6, seed=0)
    assert found.seed_sd is None


@pytest.mark.parametrize("groups", [None, [str(min(image, 30)) for image in range(50)]])
def test_seeds_that_are_always_right_keep_an_interval(groups):
    found = hierarchical_bootstrap(np.ones((3, 50), bool), seed=0, groups=groups)
    assert found.value == 1
    assert found.low < 0.95


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_rejects_what_its_step_down_procedure_does(p_values):
    adjusted = holm(p_values)
    for level in (0.01, 0.05, 0.3):
        ordered = sorted(p_values)
        rejected = set()
        for place, p_value in enumerate(ordered):
            if p_value * (len(ordered) - place) > level:
                break
            rejected.add(p_value)
        assert {p for p, q in zip(p_values, adjusted, strict=True) if q <= level} == rejected


def test_classes_tell_what_they_gain_and_lose():
    labels = np.array([0, 0, 0, 2, 2, 2, 2, 2, 2, 2])
    first = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0], bool)
    second = np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 1], bool)
    rows = class_changes(first, second, labels)
    assert [row[:4] for row in rows] == [(0, 3, 1, 1), (2, 7, 7, 0)]
    assert [row.p_value for row in rows] == pytest.approx([1.0, 2 * 2 / 2**7])


def test_classes_whose_images_show_few_subjects_tell_less():
    first, second = np.zeros(12, bool), np.ones(12, bool)
    alone, grouped = (
        class_changes(first, second, np.zeros(12, int), groups=groups) for groups in (None, np.repeat(["a", "b"], 6))
    )
    assert alone[0].p_value == pytest.approx(2 / 2**12)
    assert grouped[0] == alone[0]._replace(p_value=0.5)


@pytest.mark.parametrize("second", [[True], [0, 1], [[True, False]]])
def test_rows_that_do_not_fit_are_refused(second):
    with pytest.raises(ArgumentError, match="two rows of n >= 1 booleans for the same images"):
        paired_test([True, False], second)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ArgumentError, match="1 groups for 2 images"):
        paired_bootstrap([True, False], [True, True], seed=0, groups=["a"])


def test_sets_of_other_images_are_refused():
    with pytest.raises(ArgumentError, match="sets of 3 and 2 images: give the same images"):
        hierarchical_bootstrap(np.ones((2, 2), bool), np.ones((2, 3), bool), seed=0)


def test_a_confidence_in_percent_is_refused():
    with pytest.raises(ArgumentError, match="confidence=95"):
        paired_bootstrap([True], [False], seed=0, confidence=95)


def test_the_mean_of_units_is_the_paired_bootstrap_of_images_that_are_units():
    first, second = draw_pair(np.random.default_rng(0), 200, lost=0.05, gained=0.1)
    found = mean_over_units(second.astype(float) - first, ends=(-1, 1), seed=3)
    assert found == pytest.approx(paired_bootstrap(first, second, seed=3))


def test_units_that_are_all_alike_keep_an_interval_within_their_ends():
    found = mean_over_units(np.ones(50), ends=(0, 1), seed=0)
    assert found.value == found.high == 1
    assert 0.9 < found.low < 1


@pytest.mark.parametrize("values", [[], [0.5, 1.5], [float("nan")], [[0.5]]])
def test_values_beyond_their_ends_are_refused(values):
    with pytest.raises(ArgumentError, match="give one for each of n >= 1 units, from 0 to 1"):
        mean_over_units(values, ends=(0, 1), seed=0)
