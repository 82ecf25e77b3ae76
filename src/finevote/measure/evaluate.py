"""A run's split measured: predictions, and a report of them, kept in the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finevote.bundle.manifest import WEIGHTS_NAME, Manifest, read_manifest
from finevote.bundle.read import Bundle, read_beside_model
from finevote.data.images import check_images, without
from finevote.data.views import CENTRE, PLAIN, View, view_cuts, views_of
from finevote.errors import FinevoteError, RunError
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.pointing import PointingFigure, boxes_in_view, share_in_boxes, summarize
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.evaluation.probes import ProbeAnswers, load_answers, save_answers
from finevote.evaluation.report import Report, make_report
from finevote.explanation.figures import save_figure
from finevote.files import atomic_write, storage_errors
from finevote.measure.opening import (
    check_split,
    count_openings,
    enter_in_ledger,
    find_seen,
    open_split,
    open_unknown,
)
from finevote.measure.sections import draw_sections, find_sections
from finevote.predictor import Predictor, find_bundle
from finevote.probe.run import ask_probes
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import Box, DataSource, Predictions, Preprocessing, Regions

_logger = logging.getLogger(__name__)


def evaluate(
    run: Path | str,
    *,
    split: str = "val",
    data: str | Path | None = None,
    keep_rate: float | None = None,
    views: str = PLAIN,
    saved: bool = False,
    on_report: Callable[[Report], object] | None = None,
) -> Report:
    """Predict a split with the run's bundle and return the figures, which are also written into the run.

    Writes `predictions.npz`, `report.json`, `classes.csv` and pictures into `evaluation/{split}` of the run, and
    `probes.npz` where the run has probes, which are asked in the same look at the split. Measuring on the test split is
    entered in `test_ledger.jsonl`; its images that cannot be read are left out and reported.

    Args:
        run: a folder that `finevote fit` has finished.
        split: "val", as it was divided for the run, or "test".
        data: where the data set lies now, if it has moved.
        keep_rate: share of patches that each reducing layer keeps; None for the bundle's own.
        views: "flip", "five-crop" or "ten-crop" to measure besides what it gains to average these views of each image.
        saved: compute the figures anew from the predictions that are there; no image is opened, no model run.
        on_report: called with the figures before they are written, so that they are not lost if that fails.

    Raises:
        ArgumentError: there are no such split or views, or the model cannot keep patches at that rate.
        BundleError: the bundle is missing or not as it was written.
        DataError: the data set lacks the split or images of it, or has other classes than the run.
        RunError: `run` is no run, or what is saved is missing, broken, or of another bundle.
        StorageError: the run cannot be written.
    """
    check_split(split)
    folder = RunFolder.open(Path(run))
    if saved:
        manifest, calibration = read_beside_model(find_bundle(folder.path))
        predictions, measurement = _load_measurement(folder, manifest, split=split, keep_rate=keep_rate)
        _check_views(predictions, views, run=folder.path, split=split)
        unknown, probes = _load_unknown(folder, split), _load_probes(folder, split)
    else:
        predictor = Predictor.load(folder.path, device="auto", keep_rate=keep_rate)
        manifest, calibration = predictor.bundle.manifest, predictor.bundle.calibration
        view_cuts(manifest.preprocessing, views=views)  # raises, before anything is looked at
        held_out = open_unknown(folder, split=split, data=data)
        predictions, measurement, probes = _measure(folder, predictor, split=split, data=data, views=views)
        unknown = _predict_unknown(predictor, held_out, split=split) if held_out is not None else None
    if calibration is not None and calibration.keep_rate != measurement.keep_rate:
        calibration = None  # it does not hold at another keep rate
    report = make_report(
        predictions,
        measurement,
        class_names=manifest.class_names,
        sections=find_sections(
            predictions, calibration, split=split, unknown=unknown, taxonomy=manifest.taxonomy, probes=probes
        ),
    )
    if on_report is not None:
        on_report(report)
    _write(folder, predictions, report, unknown=unknown, probes=probes)
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
    if not _is_measured(
        folder, split, keep_rate=manifest.keep_rate, weights_sha256=manifest.files[WEIGHTS_NAME].sha256
    ):
        evaluate(run, split=split, data=data)
    return load_predictions(folder.evaluation(split).predictions_npz, advice=_measure_again(folder, split))


def is_saved(folder: RunFolder, split: str, *, keep_rate: float, weights_sha256: str) -> bool:
    """Tell whether a measurement of a split is there, can be read, and is of these weights at this keep rate."""
    try:
        return _is_measured(folder, split, keep_rate=keep_rate, weights_sha256=weights_sha256)
    except RunError:
        return False


def point(
    predictions: Predictions, boxes: Sequence[Sequence[Box]], preprocessing: Preprocessing
) -> PointingFigure | None:
    """Return how far final votes fall in each image's boxes; None without votes or boxes."""
    if predictions.final_votes is None or predictions.grid is None:
        return None
    in_view = [boxes_in_view(image_boxes, preprocessing) for image_boxes in boxes]
    return summarize(share_in_boxes(predictions.final_votes, predictions.grid, in_view))


def _measure(
    folder: RunFolder, predictor: Predictor, *, split: str, data: str | Path | None, views: str
) -> tuple[Predictions, Measurement, ProbeAnswers | None]:
    """Predict a split, by the model and by the run's probes.

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
        pointing=point(predictions, [found.parts for found in regions], predictor.preprocessing),
        on_subject=point(predictions, [_subject(found) for found in regions], predictor.preprocessing),
    )
    return predictions, measurement, _ask_probes(folder, bundle, source, split)


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


def _load_unknown(folder: RunFolder, split: str) -> Predictions | None:
    path = folder.evaluation(split).unknown_npz
    return load_predictions(path, advice=_measure_again(folder, split))[0] if path.is_file() else None


def _load_probes(folder: RunFolder, split: str) -> ProbeAnswers | None:
    path = folder.evaluation(split).probes_npz
    return load_answers(path, advice=_measure_again(folder, split)) if path.is_file() else None


def _load_measurement(
    folder: RunFolder, manifest: Manifest, *, split: str, keep_rate: float | None
) -> tuple[Predictions, Measurement]:
    """Return what was measured before, refused unless it is of the bundle that is there now."""
    files = folder.evaluation(split)
    advice = _measure_again(folder, split)
    if not files.report_json.is_file():
        raise RunError(f"nothing is saved of the {split} split of {folder.path}: {advice}")
    try:
        measurement = Measurement.from_dict(folder.read_json(files.report_json, advice=advice))
    except (KeyError, TypeError) as error:
        raise RunError(f"{files.report_json} is not a report of this finevote ({error}): {advice}") from None
    wanted = manifest.keep_rate if keep_rate is None else keep_rate
    if measurement.weights_sha256 != manifest.files[WEIGHTS_NAME].sha256 or measurement.keep_rate != wanted:
        raise RunError(
            f"what is saved of the {split} split was predicted by other weights or at keep rate "
            f"{measurement.keep_rate:g}, not {wanted:g}: {advice}"
        )
    predictions, _ = load_predictions(files.predictions_npz, advice=advice)
    changes: dict[str, Any] = {"run": str(folder.path), "bundle_sha256": manifest.sha256}
    if split == "test":
        changes["num_test_openings"], changes["num_unread_openings"] = count_openings(folder)
    return predictions, Measurement(**{**vars(measurement), **changes})


def _check_views(predictions: Predictions, views: str, *, run: Path, split: str) -> None:
    if not {view.name for view in views_of(views)} <= {View(CENTRE).name, *predictions.view_names}:
        raise RunError(
            f"nothing is saved of the views {views!r} of the {split} split: measure them: finevote evaluate {run} "
            f"--split {split} --views {views}"
        )


def _subject(regions: Regions) -> tuple[Box, ...]:
    return () if regions.subject is None else (regions.subject,)


def _write(
    folder: RunFolder,
    predictions: Predictions,
    report: Report,
    *,
    unknown: Predictions | None,
    probes: ProbeAnswers | None,
) -> None:
    """Write the files of a measurement, the report last: it vouches for the others."""
    files = folder.evaluation(report.split)
    class_names = [row.class_name for row in report.per_class]
    if not is_saved(folder, report.split, keep_rate=report.keep_rate, weights_sha256=report.weights_sha256):
        with storage_errors(files.report_json):  # stopped halfway, it would vouch for predictions of another model
            files.report_json.unlink(missing_ok=True)
    save_predictions(files.predictions_npz, predictions, class_names)
    if unknown is not None:
        save_predictions(files.unknown_npz, unknown, class_names)
    if probes is None:
        files.probes_npz.unlink(missing_ok=True)  # of an earlier measurement
    else:
        save_answers(files.probes_npz, probes)
    atomic_write(files.classes_csv, report.class_table())
    for name, figure in draw_sections(report):
        save_figure(figure, files.path / name)
    atomic_write(files.report_json, json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")


def _is_measured(folder: RunFolder, split: str, *, keep_rate: float, weights_sha256: str) -> bool:
    """Tell whether the split's predictions are there and are those of the bundle that is there now."""
    files = folder.evaluation(split)
    if not files.report_json.is_file() or not files.predictions_npz.is_file():
        return False
    saved = folder.read_json(files.report_json, advice=_measure_again(folder, split))
    return bool(saved.get("keep_rate") == keep_rate and saved.get("weights_sha256") == weights_sha256)


def _measure_again(folder: RunFolder, split: str) -> str:
    return f"measure it again: finevote evaluate {folder.path} --split {split}"
