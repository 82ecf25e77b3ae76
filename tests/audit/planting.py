"""Synthetic birds written to disk with planted copies and planted label flips, and the truth about both."""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from finevote.data.synthetic import synthetic_source

SPLITS = ("train", "val", "test")


class Planted(NamedTuple):
    """`table` is the data set; the copies map to their originals, the flips to their true classes."""

    table: Path
    exact: dict[str, str]
    altered: dict[str, str]
    flips: dict[str, str]


def plant(
    root: Path,
    *,
    images_per_class: dict[str, int] | None = None,
    num_exact: int = 0,
    num_altered: int = 0,
    flipped_share: float = 0.0,
    within_genus: bool = False,
    seed: int = 0,
) -> Planted:
    """Write the birds as JPEGs with a table of labels. Copies go to any split; altered ones are resized and compressed.

    Altered copies have 0.4 to 2 times the side, a JPEG quality of 40 to 95, any of three kinds of interpolation, and
    sometimes another format or brightness.
    """
    generator = np.random.default_rng(seed)
    source = synthetic_source(splits=SPLITS, images_per_class=images_per_class or {})
    rows: dict[str, tuple[str, str]] = {}  # image id: class, split
    for split, records in source.splits.items():
        for record in records:
            name = f"{record.image_id}.jpg"
            _save(root / name, _encode(source.read(record), "JPEG", quality=95))
            rows[name] = (source.class_names[record.label], split)
    originals = generator.choice(sorted(rows), num_exact + num_altered, replace=False).tolist()
    exact, altered = {}, {}
    for number, original in enumerate(originals):
        split = SPLITS[generator.integers(3)]
        if number < num_exact:
            name, content = f"copies/{number:04d}.jpg", (root / original).read_bytes()
            exact[name] = original
        else:
            suffix, content = _alter(root / original, generator)
            name = f"copies/{number:04d}{suffix}"
            altered[name] = original
        _save(root / name, content)
        rows[name] = (rows[original][0], split)
    flips = _flip(rows, source.class_names, share=flipped_share, within_genus=within_genus, generator=generator)
    table = root / "birds.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        writer.writerows([name, label, split] for name, (label, split) in rows.items())
    return Planted(table, exact, altered, flips)


def _flip(rows, class_names, *, share, within_genus, generator):
    flips = {}
    for name in generator.choice(sorted(rows), round(share * len(rows)), replace=False).tolist():
        label, split = rows[name]
        others = [other for other in class_names if other != label]
        if within_genus:
            others = [other for other in others if other.split()[0] == label.split()[0]]
        flips[name] = label
        rows[name] = (str(generator.choice(others)), split)
    return flips


def _alter(path, generator):
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    side = round(image.width * generator.uniform(0.4, 2.0))
    method = generator.choice([Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS])
    image = image.resize((side, round(side * generator.uniform(0.95, 1.05))), method)
    if generator.random() < 0.3:
        image = image.point(lambda value: round(value * 0.85))
    kind = ("JPEG", "JPEG", "WEBP", "PNG")[generator.integers(4)]
    return {"JPEG": ".jpg", "WEBP": ".webp", "PNG": ".png"}[kind], _encode(
        image, kind, **({} if kind == "PNG" else {"quality": int(generator.integers(40, 96))})
    )


def _encode(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def _save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
