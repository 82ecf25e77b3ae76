"""What was found of a split, as files in the run: written so that the report vouches for the others, and read again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finevote.bundle.manifest import WEIGHTS_NAME, Manifest
from finevote.data.views import CENTRE, View, views_of
from finevote.errors import RunError
from finevote.evaluation.faithfulness import FaithfulnessCurves, save_curves
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.evaluation.probes import ProbeAnswers, load_answers, save_answers
from finevote.evaluation.report import Report
from finevote.explanation.figures import save_figure
from finevote.files import atomic_write, storage_errors
from finevote.measure.faithfulness import kept_curves
from finevote.measure.opening import count_openings
from finevote.measure.sections import draw_sections
from finevote.run_folder import RunFolder
from finevote.types import PLAIN, Predictions


@dataclass(frozen=True)
class Findings:
    """All that a report is computed from: predictions, how they came about, and what there is beside them.

    `unknown` are predictions of images of classes that were held out of training, `probes` what the run's probes said,
    `curves` those of deletion and insertion; each None where there are none.
    """

    predictions: Predictions
    measurement: Measurement
    unknown: Predictions | None = None
    probes: ProbeAnswers | None = None
    curves: FaithfulnessCurves | None = None


def load_findings(
    folder: RunFolder, manifest: Manifest, *, split: str, keep_rate: float | None, views: str = PLAIN
) -> Findings:
    """Return what is saved of a split.

    Raises:
        RunError: it is missing or broken, of another bundle or keep rate, or lacks the views.
    """
    files, advice = folder.evaluation(split), measure_again(folder, split)
    predictions, measurement = _load_measurement(folder, manifest, split=split, keep_rate=keep_rate)
    _check_views(predictions, views, run=folder.path, split=split)
    return Findings(
        predictions,
        measurement,
        unknown=load_predictions(files.unknown_npz, advice=advice)[0] if files.unknown_npz.is_file() else None,
        probes=load_answers(files.probes_npz, advice=advice) if files.probes_npz.is_file() else None,
        curves=kept_curves(files.faithfulness_npz, predictions, measurement, advice=f"{advice} --faithfulness"),
    )


def write_findings(folder: RunFolder, found: Findings, report: Report) -> None:
    """Write the files of a measurement, the report last: it vouches for the others."""
    files = folder.evaluation(report.split)
    class_names = [row.class_name for row in report.per_class]
    if not is_saved(folder, report.split, keep_rate=report.keep_rate, weights_sha256=report.weights_sha256):
        with storage_errors(files.report_json):  # stopped halfway, it would vouch for predictions of another model
            files.report_json.unlink(missing_ok=True)
    save_predictions(files.predictions_npz, found.predictions, class_names)
    if found.unknown is not None:
        save_predictions(files.unknown_npz, found.unknown, class_names)
    if found.probes is None:
        files.probes_npz.unlink(missing_ok=True)  # of an earlier measurement
    else:
        save_answers(files.probes_npz, found.probes)
    if found.curves is None:
        files.faithfulness_npz.unlink(missing_ok=True)
        files.faithfulness_png.unlink(missing_ok=True)
    else:
        save_curves(files.faithfulness_npz, found.curves)
    atomic_write(files.classes_csv, report.class_table())
    for name, figure in draw_sections(report):
        save_figure(figure, files.path / name)
    atomic_write(files.report_json, json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")


def is_saved(folder: RunFolder, split: str, *, keep_rate: float, weights_sha256: str) -> bool:
    """Tell whether a measurement of a split is there, can be read, and is of these weights at this keep rate."""
    try:
        return is_measured(folder, split, keep_rate=keep_rate, weights_sha256=weights_sha256)
    except RunError:
        return False


def is_measured(folder: RunFolder, split: str, *, keep_rate: float, weights_sha256: str) -> bool:
    """Tell whether the split's predictions are there and are those of the bundle that is there now."""
    files = folder.evaluation(split)
    if not files.report_json.is_file() or not files.predictions_npz.is_file():
        return False
    saved = folder.read_json(files.report_json, advice=measure_again(folder, split))
    return bool(saved.get("keep_rate") == keep_rate and saved.get("weights_sha256") == weights_sha256)


def measure_again(folder: RunFolder, split: str) -> str:
    """Return the advice to measure a split again, which ends an error."""
    return f"measure it again: finevote evaluate {folder.path} --split {split}"


def _load_measurement(
    folder: RunFolder, manifest: Manifest, *, split: str, keep_rate: float | None
) -> tuple[Predictions, Measurement]:
    """Return what was measured before, refused unless it is of the bundle that is there now."""
    files = folder.evaluation(split)
    advice = measure_again(folder, split)
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
