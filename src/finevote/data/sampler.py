"""Which images make up each batch: functions of (seed, epoch), cut into the ranks' rows.

Every rank computes the same global batches and takes its own contiguous rows, so the work of any number of processes
is that of one.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from finevote.data.dataset import Draw
from finevote.data.seeds import combine_seeds
from finevote.errors import ArgumentError


class ShuffledBatches(Sampler[list[Draw]]):
    """Each epoch's images in a random order, in batches of full size.

    The last batch is completed with the epoch's first images, so every image is seen at least once. Set `epoch`
    before each epoch, and `start_batch` to resume in the middle of one.

    Args:
        num_records: images in the data set.
        batch_size: images an optimiser step, over all processes.
        seed: of the order.
        rank: this process.
        world_size: number of processes; divides `batch_size`.

    Raises:
        ArgumentError: no images, or a batch that the processes cannot share equally.
    """

    def __init__(self, num_records: int, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if num_records < 1:
            raise ArgumentError(f"num_records={num_records}: there are no images to draw from")
        self.num_records = num_records
        self.batch_size = batch_size
        self.seed = seed
        self.rows = _rank_rows(batch_size, rank=rank, world_size=world_size)
        self.epoch = 0
        self.start_batch = 0

    def __len__(self) -> int:
        return math.ceil(self.num_records / self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = self.epoch
        order = np.random.default_rng(combine_seeds(self.seed, epoch)).permutation(self.num_records).tolist()
        for batch in range(self.start_batch, len(self)):
            places = range(batch * self.batch_size, (batch + 1) * self.batch_size)[self.rows]
            yield [Draw(epoch, order[place % self.num_records], place // self.num_records) for place in places]


class BalancedBatches(Sampler[list[Draw]]):
    """P x K batches: P distinct classes with K images each, as batch-hard mining needs (Hermans et al. 2017).

    Each epoch the images of a class are shuffled and dealt into hands of K, the last hand completed with the first
    images; a class with fewer than K images repeats them, each time with another augmentation. Classes get places in
    proportion to their hands, so every image is seen about equally often; only a class with more hands than there are
    batches leaves some of them, other ones each epoch, unseen. `epoch` and `start_batch` as in `ShuffledBatches`.

    Args:
        labels: the class of every image.
        batch_size: P x K, over all processes.
        images_per_class: K.
        seed: of the order.
        rank: this process.
        world_size: number of processes; divides `batch_size`.

    Raises:
        ArgumentError: K does not divide the batch, there are fewer than P classes, or the processes cannot share the
            batch equally.
    """

    def __init__(
        self,
        labels: Sequence[int],
        *,
        batch_size: int,
        images_per_class: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        members = defaultdict(list)
        for index, label in enumerate(labels):
            members[label].append(index)
        self.members = [np.array(members[label]) for label in sorted(members)]
        check_classes_fill_batch(len(self.members), batch_size=batch_size, images_per_class=images_per_class)
        self.images_per_class = images_per_class
        self.classes_per_batch = batch_size // images_per_class
        self.seed = seed
        self.rows = _rank_rows(batch_size, rank=rank, world_size=world_size)
        self.epoch = 0
        self.start_batch = 0

    def __len__(self) -> int:
        num_hands = sum(math.ceil(len(member) / self.images_per_class) for member in self.members)
        return math.ceil(num_hands / self.classes_per_batch)

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = self.epoch
        generator = np.random.default_rng(combine_seeds(self.seed, epoch))
        orders = [generator.permutation(member).tolist() for member in self.members]
        dealt = [0] * len(orders)
        for batch, classes in enumerate(self._deal(generator)):
            rows: list[Draw] = []
            for number in classes:
                rows += self._hand(epoch, orders[number], dealt[number])
                dealt[number] += 1
            if batch >= self.start_batch:
                yield rows[self.rows]

    def _hand(self, epoch: int, order: list[int], hand: int) -> list[Draw]:
        places = range(hand * self.images_per_class, (hand + 1) * self.images_per_class)
        return [Draw(epoch, order[place % len(order)], place // len(order)) for place in places]

    def _deal(self, generator: np.random.Generator) -> Iterator[list[int]]:
        """Yield P distinct classes for every batch, at random in proportion to the hands that remain of each."""
        remaining = self._hands(generator)  # (classes,)
        for num_left in range(len(self), 0, -1):
            # Exponential race: the P smallest of Exp(1) / weight are a weighted draw without replacement. A class with
            # as many hands as there are batches left must be in all of them, so it goes first.
            with np.errstate(divide="ignore"):
                times = generator.exponential(size=remaining.size) / remaining
            times[remaining == num_left] = -1.0
            chosen = np.argpartition(times, self.classes_per_batch - 1)[: self.classes_per_batch]
            remaining[chosen] -= 1
            yield generator.permutation(chosen).tolist()

    def _hands(self, generator: np.random.Generator) -> np.ndarray:
        """Return how often each class comes in the epoch: its hands, at most one a batch, in all P a batch."""
        hands = np.array([math.ceil(len(member) / self.images_per_class) for member in self.members]).clip(
            max=len(self)
        )
        missing = len(self) * self.classes_per_batch - int(hands.sum())
        while missing > 0:
            free = generator.permutation(np.flatnonzero(hands < len(self)))[:missing]
            hands[free] += 1
            missing -= free.size
        return hands


class EvaluationBatches(Sampler[list[Draw]]):
    """Every image exactly once over all processes, in order, nothing padded; the last batch may be smaller.

    Process r of w reads images [r n / w, (r + 1) n / w); with fewer images than processes some read none.

    Args:
        num_records: n, images in the data set.
        batch_size: images that each process reads at once.
        rank: this process.
        world_size: number of processes.
    """

    def __init__(self, num_records: int, *, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check_rank(rank, world_size)
        self.own = range(num_records * rank // world_size, num_records * (rank + 1) // world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.own) / self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        for start in range(0, len(self.own), self.batch_size):
            yield [Draw(0, index) for index in self.own[start : start + self.batch_size]]


def _rank_rows(batch_size: int, *, rank: int, world_size: int) -> slice:
    """Return this rank's rows of a global batch."""
    _check_rank(rank, world_size)
    if batch_size < 1 or batch_size % world_size:
        raise ArgumentError(
            f"batch_size={batch_size} cannot be shared equally by {world_size} processes: use a multiple of that"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ArgumentError(f"rank={rank} must lie in 0 to world_size - 1 = {world_size - 1}")


def check_classes_fill_batch(num_classes: int, *, batch_size: int, images_per_class: int) -> None:
    """Raise ArgumentError unless there are classes enough for a P x K batch, K = `images_per_class`."""
    if batch_size % images_per_class:
        raise ArgumentError(
            f"batch_size={batch_size} is not a multiple of images_per_class={images_per_class}: change one of them"
        )
    needed = batch_size // images_per_class
    if num_classes < needed:
        raise ArgumentError(
            f"a batch of {batch_size} with {images_per_class} images a class needs {needed} classes, but the data has "
            f"{num_classes}: lower training.batch_size to {num_classes * images_per_class} or raise images_per_class"
        )
