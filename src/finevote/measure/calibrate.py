"""A finished run calibrated anew."""

from pathlib import Path
from typing import NamedTuple

from finevote.bundle import record_calibration
from finevote.calibrating import calibrate_model, some_of_each_class
from finevote.errors import DataError
from finevote.evaluation.calibrator import Calibration
from finevote.measure.opening import open_split
from finevote.predictor import Predictor, find_bundle
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import DataSource


class Recalibration(NamedTuple):
    """What a bundle had, None where it had none, and what it has now."""

    before: Calibration | None
    after: Calibration


def calibrate_run(run: Path | str, *, data: str | Path | None = None) -> Recalibration:
    """Calibrate a run's bundle by its validation split, at the keep rate that it has, and write that into the bundle.

    Args:
        run: a folder that `finevote fit` has finished.
        data: where the data set lies now, if it has moved.

    Raises:
        BundleError: the bundle is missing or not as it was written.
        DataError: the run has no validation split, or the data set lacks images of it.
        RunError: `run` is no run.
        StorageError: the bundle cannot be written.
    """
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path, device="auto")
    source = open_split(folder, predictor.bundle, split="val", data=data)
    after = calibration_of(predictor, source)
    record_calibration(find_bundle(folder.path), after)
    return Recalibration(predictor.bundle.calibration, after)


def calibration_of(predictor: Predictor, source: DataSource) -> Calibration:
    """Return what the validation images tell of a predictor at the keep rate that it has, with a progress bar."""
    total = len(some_of_each_class(source.splits["train"])) + len(source.splits["val"])
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
