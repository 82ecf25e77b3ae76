"""Small data sets as the `datasets` library writes them: flat colours with noise, two classes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

datasets.disable_progress_bars()  # of writing

CLASSES = ("blue", "red")
COLORS = {"blue": (40, 60, 200), "red": (200, 50, 40)}


def png(color: str, seed: int, *, size: tuple[int, int] = (24, 20)) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 30, (size[1], size[0], 3))
    pixels = np.clip(np.array(COLORS[color]) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def columns(num_images: int, *, seed: int = 0) -> dict[str, list[Any]]:
    """Return the columns image and label, classes by turns."""
    labels = [number % len(CLASSES) for number in range(num_images)]
    images = [{"bytes": png(CLASSES[label], seed + number), "path": None} for number, label in enumerate(labels)]
    return {"image": images, "label": labels}


def make_set(values: dict[str, Sequence[Any]], **features: Any) -> datasets.Dataset:
    """Return a set whose columns image and label are declared; `features` declares others, or otherwise."""
    declared = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES)), **features}
    return datasets.Dataset.from_dict(values, features=datasets.Features({name: declared[name] for name in values}))


def write_parquet_set(folder: Path, *, num_train: int = 8, num_val: int = 4, num_test: int = 4) -> Path:
    """Write data/train-*.parquet, validation-* and test-* as `push_to_hub` does."""
    sizes = {"train": num_train, "validation": num_val, "test": num_test}
    for seed, (split, size) in enumerate(sizes.items()):
        if size:
            write_split(folder, split, make_set(columns(size, seed=100 * seed)))
    return folder


def write_split(folder: Path, split: str, table: datasets.Dataset) -> Path:
    path = folder / "data" / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)
    return path
