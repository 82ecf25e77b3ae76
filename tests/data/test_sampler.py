from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finevote.data.sampler import BalancedBatches, EvaluationBatches, ShuffledBatches
from finevote.errors import ArgumentError

worlds = st.sampled_from([1, 2, 3, 4, 6])
class_sizes = st.lists(st.integers(1, 15), min_size=3, max_size=8)


def labels_of(sizes):
    return [label for label, size in enumerate(sizes) for _ in range(size)]


def take(batches, *, epoch=0, start=0):
    batches.epoch, batches.start_batch = epoch, start
    return list(batches)


def joined(parts):
    """Put the ranks' rows of every batch together again."""
    return [[draw for rows in batch for draw in rows] for batch in zip(*parts, strict=True)]


@given(st.integers(1, 60), worlds, st.integers(1, 3), st.integers(0, 3))
def test_shuffled_ranks_share_the_batches_of_a_single_process(num_records, world_size, share, epoch):
    settings = {"batch_size": 12 * share, "seed": 5}
    alone = take(ShuffledBatches(num_records, **settings), epoch=epoch)
    ranks = [ShuffledBatches(num_records, **settings, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert joined([take(one, epoch=epoch) for one in ranks]) == alone


@given(st.integers(1, 60), st.integers(1, 20))
def test_shuffled_batches_are_full_and_show_every_image(num_records, batch_size):
    batches = ShuffledBatches(num_records, batch_size=batch_size, seed=0)
    drawn = take(batches, epoch=3)
    assert len(drawn) == len(batches)
    assert {len(batch) for batch in drawn} == {batch_size}
    flat = [draw for batch in drawn for draw in batch]
    assert len(set(flat)) == len(flat)  # a repeated image has another `repeat`, so other augmentation
    assert {draw.epoch for draw in flat} == {3}
    counts = Counter(draw.index for draw in flat)
    assert set(counts) == set(range(num_records))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(flat) - num_records < batch_size


@pytest.mark.parametrize(
    "batches",
    [
        ShuffledBatches(50, batch_size=8, seed=1),
        BalancedBatches(labels_of([5, 9, 4, 12, 7]), batch_size=8, images_per_class=4, seed=1),
    ],
)
def test_epochs_differ_and_a_resumed_epoch_goes_on_where_it_stopped(batches):
    whole = take(batches, epoch=2)
    assert take(batches, epoch=2) == whole
    assert take(batches, epoch=2, start=3) == whole[3:]
    assert [[draw.index for draw in batch] for batch in take(batches, epoch=3)] != [
        [draw.index for draw in batch] for batch in whole
    ]


def test_seeds_give_different_orders():
    first, second = (take(ShuffledBatches(50, batch_size=10, seed=seed)) for seed in (0, 1))
    assert first != second


@given(class_sizes, st.integers(2, 4), st.integers(2, 3), st.integers(0, 3))
def test_balanced_batches_hold_p_classes_of_k_images(sizes, images_per_class, num_classes, epoch):
    labels = labels_of(sizes)
    batches = BalancedBatches(
        labels, batch_size=num_classes * images_per_class, images_per_class=images_per_class, seed=0
    )
    drawn = take(batches, epoch=epoch)
    assert len(drawn) == len(batches)
    for batch in drawn:
        counts = Counter(labels[draw.index] for draw in batch)
        assert list(counts.values()) == [images_per_class] * num_classes
        for label, size in enumerate(sizes):
            own = [draw for draw in batch if labels[draw.index] == label]
            assert len({draw.index for draw in own}) in {0, min(images_per_class, size)}
            assert len(set(own)) == len(own)


@given(class_sizes, st.sampled_from([1, 2, 3, 6]), st.integers(0, 3))
def test_balanced_ranks_share_the_batches_of_a_single_process(sizes, world_size, epoch):
    settings = {"labels": labels_of(sizes), "batch_size": 6, "images_per_class": 2, "seed": 9}
    alone = take(BalancedBatches(**settings), epoch=epoch)
    ranks = [BalancedBatches(**settings, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert joined([take(one, epoch=epoch) for one in ranks]) == alone


@given(st.lists(st.integers(1, 12), min_size=6, max_size=12))
def test_balanced_epochs_show_every_image_where_no_class_is_too_large(sizes):
    batches = BalancedBatches(labels_of(sizes), batch_size=8, images_per_class=4, seed=0)
    if max(-(-size // 4) for size in sizes) > len(batches):
        return
    counts = Counter(draw.index for batch in take(batches) for draw in batch)
    assert set(counts) == set(range(sum(sizes)))


def test_balanced_epochs_show_equal_classes_equally_often():
    batches = BalancedBatches(labels_of([12] * 10), batch_size=20, images_per_class=4, seed=0)
    counts = Counter(draw.index for batch in take(batches) for draw in batch)
    assert set(counts.values()) == {1}


def test_images_of_unequal_classes_are_seen_about_equally_often():
    sizes = [8, 16, 24, 40, 48, 8, 16, 24]
    batches = BalancedBatches(labels_of(sizes), batch_size=16, images_per_class=4, seed=0)
    counts = Counter(draw.index for epoch in range(50) for batch in take(batches, epoch=epoch) for draw in batch)
    rates = [counts[index] / 50 for index in range(sum(sizes))]
    assert min(rates) > 0.9
    assert max(rates) < 1.4


def test_a_class_with_more_hands_than_batches_shows_other_images_each_epoch():
    batches = BalancedBatches(labels_of([100, 2, 2]), batch_size=4, images_per_class=2, seed=0)
    seen = {draw.index for epoch in range(30) for batch in take(batches, epoch=epoch) for draw in batch}
    assert seen == set(range(104))


def test_a_class_with_one_image_repeats_it_with_other_augmentation():
    batches = BalancedBatches([0, 1, 1, 1], batch_size=6, images_per_class=3, seed=0)
    own = [draw for draw in take(batches)[0] if draw.index == 0]
    assert [draw.repeat for draw in own] == [0, 1, 2]


def test_too_few_classes_are_told():
    with pytest.raises(ArgumentError, match="a batch of 32 with 4 images a class needs 8 classes, but the data has 5"):
        BalancedBatches(labels_of([9] * 5), batch_size=32, images_per_class=4, seed=0)


def test_a_batch_that_is_no_multiple_of_k_is_refused():
    with pytest.raises(ArgumentError, match="batch_size=10 is not a multiple of images_per_class=4"):
        BalancedBatches(labels_of([9] * 5), batch_size=10, images_per_class=4, seed=0)


def test_a_batch_that_the_processes_cannot_share_is_refused():
    for make in (
        lambda: ShuffledBatches(9, batch_size=8, seed=0, rank=0, world_size=3),
        lambda: BalancedBatches([0, 1], batch_size=8, images_per_class=4, seed=0, rank=0, world_size=3),
    ):
        with pytest.raises(ArgumentError, match="batch_size=8 cannot be shared equally by 3 processes"):
            make()


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ArgumentError, match="rank=2 must lie in 0 to world_size - 1 = 1"):
        EvaluationBatches(9, batch_size=2, rank=2, world_size=2)


def test_no_images_are_refused():
    with pytest.raises(ArgumentError, match="no images to draw from"):
        ShuffledBatches(0, batch_size=4, seed=0)


@given(st.integers(0, 50), st.integers(1, 7), worlds)
def test_evaluation_reads_each_image_exactly_once(num_records, batch_size, world_size):
    indices = []
    for rank in range(world_size):
        batches = EvaluationBatches(num_records, batch_size=batch_size, rank=rank, world_size=world_size)
        drawn = list(batches)
        assert len(drawn) == len(batches)
        assert all(0 < len(batch) <= batch_size for batch in drawn)
        indices += [draw.index for batch in drawn for draw in batch]
    assert indices == list(range(num_records))
