"""Photographs as tensors; what an image looks like depends on (seed, epoch, image) and on nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from finevote.data.cache import DiskCache, MemoryCache, NoCache, fits_easily
from finevote.data.seeds import combine_seeds
from finevote.data.transforms import Transform, read_resized
from finevote.errors import ArgumentError, suggest
from finevote.types import Batch, Preprocessing, Record


class Draw(NamedTuple):
    """Image `index` in `epoch`; `repeat` counts its further uses in that epoch, each with its own augmentation."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a draw for
    repeat: int = 0


class PhotoDataset(Dataset[tuple[Tensor, int, int]]):
    """Labelled photographs; `dataset[Draw(epoch, index)]` gives (image (3, H, W) float32, label, index).

    The draw carries the epoch, so loader processes can stay alive between epochs, and any number of them gives the
    same images.

    Args:
        records: the images, numbered in this order.
        read: gives the RGB image of a record.
        preprocessing: the size that images are squashed to, and how.
        transform: uint8 (3, rows, columns) -> float32 (3, H, W); may use torch's default generator.
        cache: where decoded images are kept: "none", "memory" (shared by the loader's processes), "disk", or "auto":
            memory if all of them take no more than a tenth of what is free.
        cache_folder: for "disk"; None: the user's cache folder.
        seed: of the augmentation.

    Raises:
        ArgumentError: unknown `cache`.
        DataError: the images do not fit into memory.
    """

    def __init__(
        self,
        records: Sequence[Record],
        *,
        read: Callable[[Record], Image.Image],
        preprocessing: Preprocessing,
        transform: Transform,
        cache: Literal["auto", "none", "memory", "disk"] = "none",
        cache_folder: Path | None = None,
        seed: int,
    ) -> None:
        self.records = tuple(records)
        self.read = read
        self.preprocessing = preprocessing
        self.transform = transform
        self.seed = seed
        self.cache = _make_cache(cache, cache_folder, len(self.records), preprocessing)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, int]:
        record = self.records[draw.index]
        image = self.cache.get(draw.index, record, self._decode)  # (3, rows, columns) uint8
        with torch.random.fork_rng(devices=[]):
            # Only the CPU generator: torch.manual_seed would also reseed accelerators, which fork_rng does not restore.
            torch.default_generator.manual_seed(combine_seeds(self.seed, *draw))
            return self.transform(image), record.label, draw.index

    def _decode(self, record: Record) -> Tensor:
        return read_resized(lambda: self.read(record), self.preprocessing)


def collate(items: Sequence[tuple[Tensor, int, int]]) -> Batch:
    """Stack what the dataset gave into a Batch; in a loader process, in the memory that it shares with the main one."""
    images, labels, indices = zip(*items, strict=True)
    return Batch(default_collate(list(images)), torch.tensor(labels), torch.tensor(indices))


def _make_cache(
    cache: str, folder: Path | None, num_images: int, preprocessing: Preprocessing
) -> NoCache | MemoryCache | DiskCache:
    if cache == "auto":
        cache = "memory" if fits_easily(num_images, resize=preprocessing.resize) else "none"
    if cache == "none":
        return NoCache()
    if cache == "memory":
        return MemoryCache(num_images, resize=preprocessing.resize)
    if cache == "disk":
        ways = {"interpolation": preprocessing.interpolation, "decoding": preprocessing.decoding}
        return DiskCache(folder, resize=preprocessing.resize, **ways)
    raise ArgumentError(f"unknown cache {cache!r}{suggest(cache, ['auto', 'none', 'memory', 'disk'])}")
