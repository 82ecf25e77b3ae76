"""A finished run calibrated anew."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from finevote.bundle.manifest import WEIGHTS_NAME
from finevote.bundle.read import Bundle, load_bundle
from finevote.bundle.record import record_calibration
from finevote.calibrating import IMAGES_FOR_MEAN, calibrate_model
from finevote.data.subset import some_of_each_class
from finevote.data.taxonomy import read_taxonomy
from finevote.errors import BundleError, DataError
from finevote.evaluation.calibrator import Calibration
from finevote.measure.opening import SPLITS, open_split
from finevote.measure.saved import is_saved
from finevote.predictor import Predictor, find_bundle
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.torch_engine import TorchEngine
from finevote.types import DataSource, Taxonomy


class Recalibration(NamedTuple):
    """What a bundle had, None where it had none that can be read, and what it has now.

    `taxonomy` is the one that it was given, None where it has that of before, or none. `saved` names the splits of
    which predictions are saved that still hold.
    """

    before: Calibration | None
    after: Calibration
    taxonomy: Taxonomy | None
    saved: tuple[str, ...]


def calibrate_run(run: Path | str, *, data: str | Path | None = None, taxonomy: Path | None = None) -> Recalibration:
    """Calibrate a run's bundle by its validation split, at the keep rate that it has, and write that into the bundle.

    A calibration that is missing or damaged is replaced like any other. A bundle without a taxonomy takes that of the
    data, where there is one.

    Args:
        run: a folder that `finevote fit` has finished.
        data: where the data set lies now, if it has moved.
        taxonomy: a table of the classes and what is above them, for the bundle; as `read_taxonomy` takes it.

    Raises:
        BundleError: the bundle is missing or more of it than its calibration is not as it was written.
        DataError: the run has no validation split, the data set lacks images of it, or the taxonomy is not one of its
            classes.
        RunError: `run` is no run.
        StorageError: the bundle cannot be written.
    """
    folder = RunFolder.open(Path(run))
    place = find_bundle(folder.path)
    bundle = _load_to_calibrate(place)
    given = None if taxonomy is None else _read_taxonomy(taxonomy, folder, bundle)
    source = open_split(folder, bundle, split="val", data=data)
    if given is None and bundle.taxonomy is None:
        given = source.taxonomy
    predictor = Predictor(TorchEngine(bundle, device="auto"))
    after = calibration_of(predictor, source)
    record_calibration(place, after, taxonomy=given)
    sha256 = bundle.manifest.files[WEIGHTS_NAME].sha256
    saved = (split for split in SPLITS if is_saved(folder, split, keep_rate=after.keep_rate, weights_sha256=sha256))
    return Recalibration(bundle.calibration, after, given, tuple(saved))


def calibration_of(predictor: Predictor, source: DataSource) -> Calibration:
    """Return what the validation images tell of a predictor at the keep rate that it has, with a progress bar."""
    total = len(some_of_each_class(source.splits["train"], most=IMAGES_FOR_MEAN)) + len(source.splits["val"])
    with Meter("calibrate", total=total) as meter:
        found = calibrate_model(
            predictor.model,
            source,
            preprocessing=predictor.preprocessing,
            num_workers=predictor.bundle.config.data.num_workers,
            advance=meter.advance,
        )
    if found is None:
        raise DataError(f"{source.name} has no validation images to calibrate by")
    return found


def _load_to_calibrate(place: Path) -> Bundle:
    """Return a bundle, without the parts that can be made anew where one of them cannot be read."""
    try:
        return load_bundle(place)
    except BundleError:
        return load_bundle(place, with_parts=False)  # raises where anything else is wrong


def _read_taxonomy(path: Path, folder: RunFolder, bundle: Bundle) -> Taxonomy:
    """Return the taxonomy of the bundle's classes from a table of these and of those that were held out."""
    held_out = folder.read_json(folder.data_json).get("held_out_classes", ())
    found = read_taxonomy(path, [*bundle.class_names, *held_out])
    return replace(found, lineages=found.lineages[: len(bundle.class_names)])
