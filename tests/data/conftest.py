"""Small image files to read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Paint = Callable[..., Path]


@pytest.fixture
def paint() -> Paint:
    """Write an image of seeded noise and return its path; the format follows the suffix."""

    def write(path: Path, *, size: tuple[int, int] = (16, 12), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def paint_classes(paint: Paint) -> Callable[..., Path]:
    """Write `counts` images a class below a folder and return the folder."""

    def write(root: Path, counts: dict[str, int]) -> Path:
        for number, (name, count) in enumerate(counts.items()):
            (root / name).mkdir(parents=True, exist_ok=True)
            for image in range(count):
                paint(root / name / f"{image}.png", seed=1000 * number + image)
        return root

    return write
