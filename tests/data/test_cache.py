import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from finevote.data.cache import DiskCache, MemoryCache, _free_in_container, available_bytes
from finevote.data.images import read_record
from finevote.data.transforms import resize_image
from finevote.errors import DataError, StorageError
from finevote.types import Record


class Decoder:
    """Decode to 10 x 8 and count how often."""

    def __init__(self):
        self.calls = 0

    def __call__(self, record):
        self.calls += 1
        return resize_image(read_record(record), (10, 8), "bicubic")


@pytest.fixture
def record(tmp_path, paint):
    return Record("a", 0, paint(tmp_path / "a.png"))


@pytest.fixture
def disk(tmp_path):
    return DiskCache(tmp_path / "cache", resize=(10, 8), interpolation="bicubic")


def entries(disk):
    return list(disk.folder.rglob("*.npy"))


def test_an_entry_is_a_plain_array_of_the_decoded_pixels(disk, record):
    image = disk.get(0, record, Decoder())
    (entry,) = entries(disk)
    assert np.array_equal(np.load(entry, allow_pickle=False), image.numpy())
    assert torch.equal(image, Decoder()(record))


def test_a_cache_that_cannot_be_written_names_the_setting_and_the_variable(disk, record):
    disk.folder.write_text("in the way")
    with pytest.raises(StorageError, match=r"^data\.cache=disk: cannot write .*: choose another place with XDG_CACHE"):
        disk.get(0, record, Decoder())


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:100],
        lambda _: b"",
        lambda content: b"\x80\x04junk" + content,
        lambda content: content.replace(b"(3, 10, 8)", b"(3, 8, 10)"),
    ],
)
def test_a_damaged_entry_is_made_again(disk, record, damage):
    decode = Decoder()
    image = disk.get(0, record, decode)
    (entry,) = entries(disk)
    entry.write_bytes(damage(entry.read_bytes()))
    assert torch.equal(disk.get(0, record, decode), image)
    assert torch.equal(disk.get(0, record, decode), image)
    assert decode.calls == 2


def test_a_changed_photograph_is_decoded_again(disk, record, paint):
    decode = Decoder()
    before = disk.get(0, record, decode)
    paint(record.path, seed=1)
    os.utime(record.path, ns=(1, 1))
    assert not torch.equal(disk.get(0, record, decode), before)
    assert decode.calls == 2


@pytest.mark.parametrize("change", [{"resize": (8, 10)}, {"interpolation": "bilinear"}])
def test_another_resize_has_entries_of_its_own(disk, record, change):
    disk.get(0, record, Decoder())
    other = DiskCache(disk.folder, **({"resize": (10, 8), "interpolation": "bicubic"} | change))
    decode = Decoder()
    other.get(0, record, decode)
    assert decode.calls == 1
    assert len(entries(disk)) == 2


def test_an_image_less_its_banner_has_an_entry_of_its_own(disk, record):
    whole, cut = Decoder(), Decoder()
    disk.get(0, record, whole)
    image = disk.get(0, replace(record, banner_px=2), cut)
    assert (whole.calls, cut.calls, len(entries(disk))) == (1, 1, 2)
    assert torch.equal(image, Decoder()(replace(record, banner_px=2)))


def test_images_without_a_file_are_not_kept_on_disk(disk):
    drawn = torch.zeros(3, 10, 8, dtype=torch.uint8)
    assert disk.get(0, Record("drawn", 0), lambda _: drawn) is drawn
    assert not disk.folder.exists()


def test_a_photograph_that_went_away_is_told(disk, tmp_path):
    with pytest.raises(DataError, match=r"cannot read the image .*gone\.png: No such file"):
        disk.get(0, Record("gone", 0, tmp_path / "gone.png"), Decoder())


def test_the_memory_cache_decodes_once_an_image(record):
    cache, decode = MemoryCache(3, resize=(10, 8)), Decoder()
    assert torch.equal(cache.get(1, record, decode), cache.get(1, record, decode))
    assert decode.calls == 1
    assert cache.filled.tolist() == [False, True, False]
    assert cache.images.is_shared()
    assert cache.filled.is_shared()


def test_some_memory_is_available_but_no_more_than_a_machine_has():
    assert 2**20 < available_bytes() < 2**50


@pytest.mark.parametrize(("limit", "free"), [("1000", 450), ("600", 50), ("500", 0), ("max", None)])
def test_a_container_leaves_its_limit_less_what_is_used_but_for_file_caches(tmp_path, limit, free):
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 550\nfile 150\ninactive_file 150\n")
    assert _free_in_container(tmp_path) == free


def test_outside_a_container_there_is_no_limit(tmp_path):
    assert _free_in_container(tmp_path) is None
