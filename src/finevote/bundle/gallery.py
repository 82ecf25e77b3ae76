"""The gallery of a bundle as files: arrays in safetensors, names in JSON."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from finevote.bundle.checks import advice_on, check_files
from finevote.bundle.manifest import GALLERY_NAMES, WEIGHTS_NAME, Manifest, Strict, read_manifest
from finevote.errors import ArgumentError, BundleError
from finevote.evaluation.gallery import Gallery

_ARRAYS, _TEXT = GALLERY_NAMES


class _Names(Strict):
    """The content of gallery.json."""

    keep_rate: float
    metric: str
    weights_sha256: str
    thumbnail_px: int
    root: str | None
    image_ids: tuple[str, ...]
    paths: tuple[str | None, ...]


def save_gallery(folder: Path, gallery: Gallery, *, weights_sha256: str) -> None:
    """Write the gallery's files into a folder, marked as being of these weights."""
    arrays = {"embeddings": np.ascontiguousarray(gallery.embeddings), "labels": gallery.labels.astype(np.int64)}
    if gallery.thumbnails:
        sizes = np.array([len(thumbnail) for thumbnail in gallery.thumbnails], np.int64)
        joined = np.frombuffer(b"".join(gallery.thumbnails), np.uint8)
        arrays |= {"thumbnails": joined, "thumbnail_sizes": sizes}
    save_file(arrays, folder / _ARRAYS)
    marked = replace(gallery, weights_sha256=weights_sha256)
    names = _Names(**{name: getattr(marked, name) for name in _Names.model_fields})
    text = json.dumps(names.model_dump(mode="json"), ensure_ascii=False, indent=0)
    (folder / _TEXT).write_text(text + "\n", encoding="utf-8")


def read_gallery(folder: Path) -> Gallery | None:
    """Read the gallery of a bundle after checking its files; None where it has none.

    Raises:
        BundleError: it is missing though the bundle lists it, cut, changed, of other weights, or does not fit together.
    """
    manifest = read_manifest(folder)
    if not manifest.files.keys() & set(GALLERY_NAMES):
        return None
    check_files(folder, manifest, passed_over=_others(folder, manifest))
    try:
        gallery = _load(folder)
    except (SafetensorError, OSError, ValueError, KeyError, ArgumentError) as error:
        problem = "; ".join(str(one["msg"]) for one in error.errors()) if isinstance(error, ValidationError) else error
        raise BundleError(
            f"cannot read the gallery of {folder} ({problem}): {advice_on(folder, set(GALLERY_NAMES))}"
        ) from None
    _check_fits(folder, gallery, manifest)
    return gallery


def _others(folder: Path, manifest: Manifest) -> frozenset[str]:
    """Return the names of all that is no gallery."""
    return frozenset({*manifest.files, *(item.name for item in folder.iterdir())} - set(GALLERY_NAMES))


def _load(folder: Path) -> Gallery:
    arrays = load_file(folder / _ARRAYS)
    names = _Names.model_validate_json((folder / _TEXT).read_text(encoding="utf-8"))
    embeddings, labels = arrays["embeddings"], arrays["labels"]
    if embeddings.dtype not in (np.float16, np.float32) or labels.dtype != np.int64:
        raise ArgumentError(f"embeddings of {embeddings.dtype} and labels of {labels.dtype}")
    thumbnails = _split(arrays["thumbnails"], arrays["thumbnail_sizes"]) if names.thumbnail_px else ()
    values: dict[str, Any] = {name: getattr(names, name) for name in _Names.model_fields}
    return Gallery(embeddings=embeddings, labels=labels, thumbnails=thumbnails, **values)


def _split(joined: NDArray[np.uint8], sizes: NDArray[np.int64]) -> tuple[bytes, ...]:
    ends = [0, *np.cumsum(sizes).tolist()]
    if (sizes < 0).any() or ends[-1] != len(joined):
        raise ArgumentError(f"thumbnails of {ends[-1]:,} bytes in {len(joined):,}")
    content = joined.tobytes()
    return tuple(content[start:end] for start, end in pairwise(ends))


def _check_fits(folder: Path, gallery: Gallery, manifest: Manifest) -> None:
    """Raise BundleError unless the gallery is of the bundle's weights and classes."""
    num_classes = len(manifest.class_names)
    if gallery.weights_sha256 != manifest.files[WEIGHTS_NAME].sha256:
        problem = "was made with other weights than the bundle has"
    elif not 0 <= gallery.labels.min() <= gallery.labels.max() < num_classes:
        problem = f"has labels from {gallery.labels.min()} to {gallery.labels.max()}, the bundle {num_classes} classes"
    else:
        return
    raise BundleError(f"the gallery of {folder} {problem}: {advice_on(folder, set(GALLERY_NAMES))}")
