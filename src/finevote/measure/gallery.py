"""A finished run's gallery made anew, or taken out of its bundle."""

from pathlib import Path
from typing import NamedTuple

from finevote.bundle.manifest import GALLERY_NAMES, read_manifest
from finevote.bundle.read import Bundle, load_bundle
from finevote.bundle.record import record_gallery
from finevote.collecting import collect_gallery, metric_of, root_of
from finevote.errors import BundleError
from finevote.evaluation.gallery import Gallery
from finevote.measure.opening import open_train
from finevote.predictor import find_bundle
from finevote.run_folder import RunFolder
from finevote.torch_engine import TorchEngine


class Collected(NamedTuple):
    """A gallery, the size of its files in the bundle and, of it, of its thumbnails."""

    gallery: Gallery
    num_bytes: int
    num_thumbnail_bytes: int


def collect(
    run: Path | str,
    *,
    data: str | Path | None = None,
    thumbnail_px: int | None = None,
    max_images: int | None = None,
) -> Collected:
    """Make the gallery of a run's bundle from its training images, at the keep rate that the bundle has.

    A gallery that is there, or is damaged, is replaced.

    Args:
        run: a folder that `finevote fit` has finished.
        data: where the data set lies now, if it has moved.
        thumbnail_px: the longer side of thumbnails, 0 for none; None for the run's setting.
        max_images: of which each class has an even share; None for the run's setting.

    Raises:
        ArgumentError: `max_images` is fewer than the classes.
        BundleError: the bundle is missing, or more of it than its gallery is not as it was written.
        DataError: images that the run was fitted to are missing.
        RunError: `run` is no run.
        StorageError: the bundle cannot be written.
    """
    folder = RunFolder.open(Path(run))
    place = find_bundle(folder.path)
    bundle = _load_without_parts(place)
    settings = bundle.config.gallery
    source = open_train(folder, bundle, data=data)
    argument = folder.read_json(folder.data_json)["data"] if data is None else data
    gallery = collect_gallery(
        TorchEngine(bundle, device="auto").model,
        source,
        preprocessing=bundle.preprocessing,
        metric=metric_of(bundle.config),
        thumbnail_px=settings.thumbnail_px if thumbnail_px is None else thumbnail_px,
        max_images=settings.max_images if max_images is None else max_images,
        root=root_of(argument),
        num_workers=bundle.config.data.num_workers,
    )
    record_gallery(place, gallery)
    return Collected(gallery, _num_bytes(place), sum(map(len, gallery.thumbnails)))


def remove(run: Path | str) -> int:
    """Take the gallery out of a run's bundle; return how many bytes that saves, 0 where it had none.

    Raises:
        BundleError: the bundle is missing, or its description is not as it was written.
        RunError: `run` is no run.
        StorageError: the bundle cannot be written.
    """
    place = find_bundle(RunFolder.open(Path(run)).path)
    if num_bytes := _num_bytes(place):
        record_gallery(place, None)
    return num_bytes


def _load_without_parts(place: Path) -> Bundle:
    """Return a bundle, without the parts that can be made anew where one of them cannot be read."""
    try:
        return load_bundle(place)
    except BundleError:
        return load_bundle(place, with_parts=False)  # raises where anything else is wrong


def _num_bytes(place: Path) -> int:
    files = read_manifest(place).files
    return sum(files[name].size_bytes for name in GALLERY_NAMES if name in files)
