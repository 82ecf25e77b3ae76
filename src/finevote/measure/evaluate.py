"""A run's split measured: predictions, and a report of them, kept in the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from finevote.bundle.additions import load_added_names
from finevote.bundle.gallery import read_gallery
from finevote.bundle.manifest import WEIGHTS_NAME, Manifest, read_manifest
from finevote.bundle.read import Bundle, read_beside_model
from finevote.data.images import check_images, without
from finevote.data.views import view_cuts
from finevote.errors import FinevoteError
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.predictions import load_predictions
from finevote.evaluation.probes import ProbeAnswers
from finevote.evaluation.report import Report, make_report
from finevote.measure.faithfulness import check_number, follow_split, kept_curves
from finevote.measure.opening import check_split, enter_in_ledger, find_seen, open_split, open_unknown
from finevote.measure.pointing import pointing_figures
from finevote.measure.saved import Findings, is_measured, load_findings, measure_again, write_findings
from finevote.measure.sections import find_sections
from finevote.predictor import Predictor, find_bundle
from finevote.probe.run import ask_probes
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import PLAIN, DataSource, Predictions

_logger = logging.getLogger(__name__)


def evaluate(
    run: Path | str,
    *,
    split: str = "val",
    data: str | Path | None = None,
    keep_rate: float | None = None,
    views: str = PLAIN,
    saved: bool = False,
    faithfulness: int | None = None,
    on_report: Callable[[Report], object] | None = None,
) -> Report:
    """Predict a split with the run's bundle and return the figures, which are also written into the run.

    Writes `predictions.npz`, `report.json`, `classes.csv` and pictures into `evaluation/{split}` of the run, and
    `probes.npz` where the run has probes, which are asked in the same look at the split. `faithfulness.npz` is written
    where it is asked for, and stays, with its figures in the report, until weights, keep rate or images are others.
    Measuring on the test split is entered in `test_ledger.jsonl`; its images that cannot be read are left out and
    reported.

    Args:
        run: a folder that `finevote fit` has finished.
        split: "val", as it was divided for the run, or "test".
        data: where the data set lies now, if it has moved.
        keep_rate: share of patches that each reducing layer keeps; None for the bundle's own.
        views: "flip", "five-crop" or "ten-crop" to measure besides what it gains to average these views of each image.
        saved: compute the figures anew from the predictions that are there; no image is opened, no model run.
        faithfulness: number of images, drawn evenly, of which deletion and insertion curves are made, by some 150 views
            of each; None to make none.
        on_report: called with the figures before they are written, so that they are not lost if that fails.

    Raises:
        ArgumentError: there are no such split or views, the model cannot keep patches at that rate, or the
            faithfulness of no images is asked for.
        BundleError: the bundle is missing or not as it was written.
        DataError: the data set lacks the split or images of it, or has other classes than the run.
        RunError: `run` is no run, or what is saved is missing, broken, or of another bundle.
        StorageError: the run cannot be written.
    """
    check_split(split)
    check_number(faithfulness)
    folder = RunFolder.open(Path(run))
    place = find_bundle(folder.path)
    gallery = _gallery_at(place, keep_rate)
    if saved:
        manifest, calibration = read_beside_model(place)
        found = load_findings(folder, manifest, split=split, keep_rate=keep_rate, views=views)
    else:
        predictor = Predictor.load(folder.path, device="auto", keep_rate=keep_rate)
        manifest, calibration = predictor.bundle.manifest, predictor.bundle.calibration
        view_cuts(manifest.preprocessing, views=views)  # raises, before anything is looked at
        found, source = _measure(folder, predictor, split=split, data=data, views=views)
        if faithfulness is not None:
            write_findings(
                folder, found, _report(found, manifest, calibration, gallery)
            )  # it is long: what is there is kept
            found = replace(found, curves=follow_split(predictor, source, split, num_images=faithfulness))
    report = _report(found, manifest, calibration, gallery)
    if on_report is not None:
        on_report(report)
    write_findings(folder, found, report)
    return report


def predictions_of(
    run: Path | str, *, split: str = "val", data: str | Path | None = None
) -> tuple[Predictions, tuple[str, ...]]:
    """Return what the run's bundle says of a split, and the class names; measured first if that has not been done.

    Raises as `evaluate` does.
    """
    check_split(split)
    folder = RunFolder.open(Path(run))
    manifest = read_manifest(find_bundle(folder.path))
    if not is_measured(folder, split, keep_rate=manifest.keep_rate, weights_sha256=manifest.files[WEIGHTS_NAME].sha256):
        evaluate(run, split=split, data=data)
    return load_predictions(folder.evaluation(split).predictions_npz, advice=measure_again(folder, split))


def _measure(
    folder: RunFolder, predictor: Predictor, *, split: str, data: str | Path | None, views: str
) -> tuple[Findings, DataSource]:
    """Predict a split and the classes held out, by the model and by the run's probes; return also the split's data."""
    held_out = open_unknown(folder, split=split, data=data)
    predictions, measurement, source = _predict_split(folder, predictor, split=split, data=data, views=views)
    found = Findings(
        predictions,
        measurement,
        unknown=None if held_out is None else _predict_unknown(predictor, held_out, split=split),
        probes=_ask_probes(folder, predictor.bundle, source, split),
        curves=kept_curves(folder.evaluation(split).faithfulness_npz, predictions, measurement),
    )
    return found, source


def _predict_split(
    folder: RunFolder, predictor: Predictor, *, split: str, data: str | Path | None, views: str
) -> tuple[Predictions, Measurement, DataSource]:
    """Predict a split; return also how that was done, and the data set as it was predicted.

    The test split is entered in the ledger once everything that can be wrong has been looked at.
    """
    bundle = predictor.bundle
    manifest = bundle.manifest
    source = open_split(folder, bundle, split=split, data=data)
    unreadable = check_images(source, (split,)) if split == "test" else {}  # val was checked before training
    source = without(source, unreadable)
    records = source.splits[split]
    regions = [source.regions(record) for record in records]  # now, so that broken boxes cost no look at test
    keep_rate = predictor.model.keep_rate
    openings = None
    if split == "test":
        openings = enter_in_ledger(
            folder, manifest, protocol=source.protocol, keep_rate=keep_rate, views=views, num_images=len(records)
        )
    with Meter(f"evaluate {split}", total=len(records)) as meter:
        num_workers = bundle.config.data.num_workers
        predictions = predictor.predict_records(
            source, split, num_workers=num_workers, views=views, advance=meter.advance
        )
    measurement = Measurement(
        run=str(folder.path),
        data=source.name,
        split=split,
        bundle_sha256=manifest.sha256,
        weights_sha256=manifest.files[WEIGHTS_NAME].sha256,
        keep_rate=keep_rate,
        setting=folder.read_json(folder.data_json)["setting"],
        protocol=source.protocol,
        notes=source.notes,
        skipped=unreadable,
        seen=find_seen(folder, source, split=split, data=data),
        num_test_openings=openings and openings.num,
        num_unread_openings=openings.num_unread if openings else 0,
        **pointing_figures(predictions, regions, predictor.preprocessing),
    )
    return predictions, measurement, source


def _gallery_at(place: Path, keep_rate: float | None) -> Gallery | None:
    """Return the gallery of a bundle if it is of this keep rate, None for the bundle's own; a warning if it is not."""
    gallery = read_gallery(place)
    wanted = read_manifest(place).keep_rate if keep_rate is None else keep_rate
    if gallery is None or gallery.keep_rate == wanted:
        return gallery
    _logger.warning("the gallery is of keep rate %g, so retrieval is left out of the report", gallery.keep_rate)
    return None


def _report(found: Findings, manifest: Manifest, calibration: Calibration | None, gallery: Gallery | None) -> Report:
    if calibration is not None and calibration.keep_rate != found.measurement.keep_rate:
        calibration = None  # it does not hold at another keep rate
    sections = find_sections(
        found.predictions,
        calibration,
        split=found.measurement.split,
        unknown=found.unknown,
        taxonomy=manifest.taxonomy,
        probes=found.probes,
        curves=found.curves,
        gallery=gallery,
        seen=found.measurement.seen,
        added=load_added_names(find_bundle(Path(found.measurement.run)), manifest),
    )
    return make_report(found.predictions, found.measurement, class_names=manifest.class_names, sections=sections)


def _ask_probes(folder: RunFolder, bundle: Bundle, source: DataSource, split: str) -> ProbeAnswers | None:
    """Return what the run's probes say of a split; None, with a warning if it has some that cannot be asked."""
    if not folder.probe_json.is_file():
        return None
    try:
        return ask_probes(folder, source, source.splits[split], bundle.config)
    except FinevoteError as error:  # the split has been looked at by now: what the model said of it must not be lost
        _logger.warning("the probes are left out of the report: %s", error)
        return None


def _predict_unknown(predictor: Predictor, source: DataSource, *, split: str) -> Predictions:
    """Predict the split's images of classes that were held out of training; what cannot be read is left out."""
    source = without(source, check_images(source, (split,)))
    num_workers = predictor.bundle.config.data.num_workers
    with Meter("held-out classes", total=len(source.splits[split])) as meter:
        return predictor.predict_records(source, split, num_workers=num_workers, advance=meter.advance)
