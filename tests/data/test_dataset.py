from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from finevote.data import cache
from finevote.data.cache import MemoryCache, NoCache
from finevote.data.dataset import Draw, PhotoDataset, collate
from finevote.data.images import read_record
from finevote.data.places import cache_folder
from finevote.data.sampler import ShuffledBatches
from finevote.data.transforms import eval_transform, train_transform
from finevote.errors import ArgumentError, DataError
from finevote.types import Preprocessing, Record

PREPROCESSING = Preprocessing((16, 16), (20, 20), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def records(tmp_path, paint):
    return [Record(f"{n}", n % 2, paint(tmp_path / f"{n}.png", size=(30, 24), seed=n)) for n in range(6)]


def make_dataset(records, **changes):
    transform = train_transform(
        PREPROCESSING,
        crop="random_resized",
        crop_scale=(0.4, 1.0),
        flip=0.5,
        color_jitter=0.4,
        randaugment=1,
        randaugment_magnitude=9,
        random_erasing=0.3,
    )
    settings = {"read": read_record, "preprocessing": PREPROCESSING, "transform": transform, "seed": 1} | changes
    return PhotoDataset(records, **settings)


def load_epochs(dataset, *, num_workers, epochs=(0, 1)):
    batches = ShuffledBatches(len(dataset), batch_size=4, seed=0)
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    loaded = []
    for epoch in epochs:
        batches.epoch = epoch
        loaded += [(batch.images.clone(), batch.labels.clone(), batch.indices.clone()) for batch in loader]
    return loaded


def test_an_item_is_image_label_and_index(records):
    image, label, index = make_dataset(records)[Draw(0, 3)]
    assert image.shape == (3, 16, 16)
    assert image.dtype == torch.float32
    assert (label, index) == (1, 3)


def test_augmentation_is_a_function_of_seed_epoch_image_and_repeat(records):
    dataset, other_seed = make_dataset(records), make_dataset(records, seed=2)
    first = dataset[Draw(4, 2)][0]
    torch.manual_seed(99)
    dataset[Draw(0, 1)]
    assert torch.equal(dataset[Draw(4, 2)][0], first)
    for other in (dataset[Draw(5, 2)], dataset[Draw(4, 2, repeat=1)], dataset[Draw(4, 3)], other_seed[Draw(4, 2)]):
        assert not torch.equal(other[0], first)


def test_reading_leaves_the_global_generator_as_it_was(records):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make_dataset(records)[Draw(0, 0)]
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["auto", "none", "memory", "disk"])
def test_two_persistent_workers_give_what_the_main_process_gives(records, tmp_path, kind):
    alone = load_epochs(make_dataset(records), num_workers=0)
    shared = load_epochs(make_dataset(records, cache=kind, cache_folder=tmp_path / "cache"), num_workers=2)
    assert len(alone) == len(shared) == 4
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


def test_epochs_differ(records):
    first, second = (load_epochs(make_dataset(records), num_workers=0, epochs=[epoch]) for epoch in (0, 1))
    assert not torch.equal(first[0][0], second[0][0])


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_cached_image_is_read_once_and_stays_the_same(records, tmp_path, kind):
    reads = []

    def read(record):
        reads.append(record.image_id)
        return read_record(record)

    plain = make_dataset(records)
    dataset = make_dataset(records, read=read, cache=kind, cache_folder=tmp_path / "cache")
    for epoch in (0, 1, 2):
        assert torch.equal(dataset[Draw(epoch, 4)][0], plain[Draw(epoch, 4)][0])
    assert reads == ["4"]


def test_the_memory_cache_is_filled_by_the_workers_for_all(records):
    dataset = make_dataset(records, cache="memory")
    load_epochs(dataset, num_workers=2, epochs=[0])
    assert dataset.cache.filled.all()


def test_an_unreadable_image_is_told_by_its_path(records):
    records[2].path.write_bytes(b"broken")
    with pytest.raises(DataError, match=r"cannot read the image .*2\.png"):
        make_dataset(records)[Draw(0, 2)]


@pytest.mark.parametrize(("num_bytes", "kept"), [(72_000, MemoryCache), (71_999, NoCache)])
def test_auto_keeps_images_in_memory_if_they_take_a_tenth_of_what_is_free(records, monkeypatch, num_bytes, kept):
    monkeypatch.setattr(cache, "available_bytes", lambda: num_bytes)  # six images of 3 x 20 x 20
    assert type(make_dataset(records, cache="auto").cache) is kept


def test_decodings_are_not_mixed_up_in_a_disk_cache(tmp_path):
    path = tmp_path / "a.jpg"
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(path)
    records = [Record("a", 0, path)]
    for decoding in ("exact", "fast"):
        settings = {"preprocessing": replace(PREPROCESSING, decoding=decoding)}
        kept = make_dataset(records, cache="disk", cache_folder=tmp_path / "cache", **settings)
        expected = make_dataset(records, **settings)[Draw(0, 0)][0]
        for _ in range(2):
            assert torch.equal(kept[Draw(0, 0)][0], expected)
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2


def test_an_unknown_cache_is_refused(records):
    with pytest.raises(ArgumentError, match="unknown cache 'disc'; did you mean 'disk'"):
        make_dataset(records, cache="disc")


def test_a_memory_cache_that_does_not_fit_is_refused_with_both_sizes(records, monkeypatch):
    monkeypatch.setattr(cache, "available_bytes", lambda: 10_000)
    with pytest.raises(
        DataError, match=r"needs 0\.00 GiB for 6 images of 20x20, but 0\.00 GiB are free and 70% .*disk"
    ):
        make_dataset(records, cache="memory")


def test_a_batch_stacks_images_labels_and_indices(records):
    dataset = make_dataset(records, transform=eval_transform(PREPROCESSING))
    batch = collate([dataset[Draw(0, index)] for index in (5, 0)])
    assert batch.images.shape == (2, 3, 16, 16)
    assert batch.labels.tolist() == [1, 0]
    assert batch.indices.tolist() == [5, 0]
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert batch.targets is None


def test_the_length_is_the_number_of_records(records):
    assert len(make_dataset(records)) == 6


def test_the_disk_cache_is_by_default_in_the_users_cache_folder(records, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    make_dataset(records, cache="disk")[Draw(0, 0)]
    assert len(list((tmp_path / "home" / "finevote" / "decoded").glob("??/*.npy"))) == 1
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "user")
    assert cache_folder("decoded") == tmp_path / "user" / ".cache" / "finevote" / "decoded"
