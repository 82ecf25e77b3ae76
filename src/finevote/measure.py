"""Measuring a finished run: a split's predictions, figures and pictures, and the ledger of the test split."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from finevote.bundle import Bundle, Manifest, read_manifest
from finevote.data.duplicates import same_files
from finevote.data.images import find_unreadable, without
from finevote.data.registry import open_source, protocol_for
from finevote.data.splits import restore_split
from finevote.errors import ArgumentError, DataError, suggest
from finevote.evaluation.metrics import softmax
from finevote.evaluation.pointing import PointingFigure, boxes_in_view, share_in_boxes, summarize
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.evaluation.report import Report, make_report
from finevote.evaluation.trust import Trust, measure_trust
from finevote.explanation.figures import Example, example_grid, save_figure
from finevote.explanation.reliability import reliability_diagram
from finevote.files import atomic_write
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import Box, DataSource, Predictions, Preprocessing, Record, Regions

SPLITS = ("val", "test")
_NUM_EXAMPLES, _NUM_OF_EACH = 12, 4
_TITLES = {"val": "Validation", "test": "Test"}


def evaluate(
    run: Path | str,
    *,
    split: str = "val",
    data: str | Path | None = None,
    keep_rate: float | None = None,
    on_report: Callable[[Report], object] | None = None,
) -> Report:
    """Predict a split with the run's bundle and return the figures, which are also written into the run.

    Writes `predictions/{split}.npz`, `evaluation_{split}.json`, `evaluation_{split}_classes.csv` and
    `reliability_{split}.png`. Measuring on the
    test split is entered in `test_ledger.jsonl`; its images that cannot be read are left out and reported.

    Args:
        run: a folder that `finevote fit` has finished.
        split: "val", as it was divided for the run, or "test".
        data: where the data set lies now, if it has moved.
        keep_rate: share of patches that each reducing layer keeps; None for the bundle's own.
        on_report: called with the figures before they are written, so that they are not lost if that fails.

    Raises:
        ArgumentError: there is no such split, or the model cannot keep patches at that rate.
        BundleError: the bundle is missing or not as it was written.
        DataError: the data set lacks the split or images of it, or has other classes than the run.
        RunError: `run` is no run.
        StorageError: the run cannot be written.
    """
    _check_split(split)
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path, device="auto", keep_rate=keep_rate)
    source = open_split(folder, predictor.bundle, split=split, data=data)
    unreadable = _check_images(source) if split == "test" else {}  # those of val were checked before training
    source = without(source, unreadable)
    records = source.splits[split]
    regions = [source.regions(record) for record in records]  # now, so that broken boxes cost no look at test
    sha256 = predictor.bundle.manifest.sha256
    num_openings = _enter_in_ledger(folder, sha256, num_images=len(records)) if split == "test" else None
    with Meter(f"evaluate {split}", total=len(records)) as meter:
        num_workers = predictor.bundle.config.data.num_workers
        predictions = predictor.predict_records(source, split, num_workers=num_workers, advance=meter.advance)
    report = make_report(
        predictions,
        class_names=source.class_names,
        run=str(run),
        data=source.name,
        split=split,
        bundle_sha256=sha256,
        pointing=point(predictions, [found.parts for found in regions], predictor.preprocessing),
        on_subject=point(predictions, [_subject(found) for found in regions], predictor.preprocessing),
        seen=_find_seen(folder, source, split=split, data=data),
        skipped=unreadable,
        num_test_openings=num_openings,
        protocol=source.protocol,
        setting=folder.read_json(folder.data_json)["setting"],
        notes=source.notes,
        keep_rate=predictor.model.keep_rate,
        trust=_measure_trust(predictions, predictor, records, split=split),
    )
    if on_report is not None:
        on_report(report)
    _write(folder, predictions, report)
    return report


def predictions_of(
    run: Path | str, *, split: str = "val", data: str | Path | None = None
) -> tuple[Predictions, tuple[str, ...]]:
    """Return what the run's bundle says of a split, and the class names; measured first if that has not been done.

    Raises as `evaluate` does.
    """
    _check_split(split)
    folder = RunFolder.open(Path(run))
    keep_rate = float(read_manifest(folder.bundle).config["model"]["voting"].get("keep_rate", 1.0))
    if not _is_measured(folder, split, keep_rate=keep_rate):
        evaluate(run, split=split, data=data)
    return load_predictions(folder.predictions / f"{split}.npz")


def draw_examples(run: Path | str, *, split: str = "val", data: str | Path | None = None) -> Path:
    """Draw right and wrong predictions of a split as `examples_{split}.png` in the run; return its path.

    Measures the split first if that has not been done with the bundle that the run has now. Raises as `evaluate` does.
    """
    _check_split(split)
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path)
    if not _is_measured(folder, split, keep_rate=predictor.model.keep_rate):
        evaluate(run, split=split, data=data)
    predictions, _ = load_predictions(folder.predictions / f"{split}.npz")
    source = open_split(folder, predictor.bundle, split=split, data=data)
    rows = choose_examples(predictions)
    is_right = predictions.logits.argmax(axis=1) == predictions.labels
    num_right = int(is_right[rows].sum())
    chosen = ", drawn at random" if len(rows) < len(is_right) else ""
    protocol = f" (protocol {source.protocol})" if source.protocol else ""
    discs = "; yellow discs are final votes" if predictions.final_votes is not None else ""
    figure = example_grid(
        _make_examples(predictions, rows, source=source, split=split, preprocessing=predictor.preprocessing),
        title=f"{_TITLES[split]}: {is_right.mean():.1%} of {len(is_right):,} images are named right{protocol}",
        subtitle=f"{num_right} right and {len(rows) - num_right} wrong ones{chosen}{discs}",
    )
    return save_figure(figure, folder.path / f"examples_{split}.png")


def point(
    predictions: Predictions, boxes: Sequence[Sequence[Box]], preprocessing: Preprocessing
) -> PointingFigure | None:
    """Return how far final votes fall in each image's boxes; None without votes or boxes."""
    if predictions.final_votes is None or predictions.grid is None:
        return None
    in_view = [boxes_in_view(image_boxes, preprocessing) for image_boxes in boxes]
    return summarize(share_in_boxes(predictions.final_votes, predictions.grid, in_view))


def _subject(regions: Regions) -> tuple[Box, ...]:
    return () if regions.subject is None else (regions.subject,)


def choose_examples(predictions: Predictions) -> list[int]:
    """Return rows of up to 12 images drawn at random, the right ones first.

    The mix is that of the split, but with at least 4 right and 4 wrong ones where there are as many.
    """
    is_right = predictions.logits.argmax(axis=1) == predictions.labels
    order = np.random.default_rng(0).permutation(len(is_right))
    right, wrong = order[is_right[order]].tolist(), order[~is_right[order]].tolist()
    wanted = int(np.clip(round(_NUM_EXAMPLES * is_right.mean()), _NUM_OF_EACH, _NUM_EXAMPLES - _NUM_OF_EACH))
    num_right = min(len(right), max(wanted, _NUM_EXAMPLES - len(wrong)))
    return [*right[:num_right], *wrong[: _NUM_EXAMPLES - num_right]]


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ArgumentError(f"cannot measure on the split {split!r}{suggest(split, SPLITS)}")


def open_split(folder: RunFolder, bundle: Bundle | Manifest, *, split: str, data: str | Path | None) -> DataSource:
    """Return the data set with `split` as the run knows it; the test split is opened only if it is the one."""
    saved, divided = folder.read_json(folder.data_json), folder.read_json(folder.split_json)
    if split == "val" and "val" not in divided["splits"]:
        raise DataError(f"{folder.path} was trained without validation: measure it on the test split, --split test")
    place = saved["data"] if data is None else data
    wanted = ("train", "val") if split == "val" else (split,)
    source = open_source(place, splits=wanted, protocol=protocol_for(place, saved["protocol"]))
    if source.class_names != bundle.class_names:
        raise DataError(
            f"{source.name} has {len(source.class_names)} classes that are not the {len(bundle.class_names)} of "
            f"{folder.path}: give the data that it was fitted to"
        )
    source = without(source, saved["skipped"])
    if split == "val":
        source = restore_split(source, divided)
    if not source.splits.get(split):
        found = ", ".join(f"{len(records):,} of {name}" for name, records in source.splits.items() if records)
        raise DataError(f"{source.name} has no {split} images; it has {found or 'none at all'}")
    return source


def _find_seen(folder: RunFolder, source: DataSource, *, split: str, data: str | Path | None) -> dict[str, str] | None:
    """Return the images of `split` whose file the run was fitted to or chosen on, as {image_id: that one's image_id}.

    None if the images that the run was fitted to are no longer all there to compare with.
    """
    saved, divided = folder.read_json(folder.data_json), folder.read_json(folder.split_json)
    place = saved["data"] if data is None else data
    try:
        fitted = open_source(place, splits=("train", "val"), protocol=protocol_for(place, saved["protocol"]))
        fitted = restore_split(without(fitted, saved["skipped"]), divided)
    except DataError:
        return None
    others = [record for other in ("train", "val") if other != split for record in fitted.splits.get(other, ())]
    return {again.image_id: first.image_id for first, again in same_files(others, source.splits[split])}


def _check_images(source: DataSource) -> dict[str, str]:
    with Meter("check images", total=len(source.splits["test"])) as meter:
        return find_unreadable(source, source.splits["test"], advance=meter.advance)


def _enter_in_ledger(folder: RunFolder, sha256: str, *, num_images: int) -> int:
    """Note that the test split is about to be measured on; return how often it has been, this time included."""
    path = folder.test_ledger_jsonl
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines.append(json.dumps({"time": now, "bundle_sha256": sha256, "num_images": num_images}))
    atomic_write(path, "\n".join(lines) + "\n")
    return len(lines)


def _measure_trust(predictions: Predictions, predictor: Predictor, records: Sequence[Record], *, split: str) -> Trust:
    """Return how far the predictions can be believed; what was calibrated at another keep rate does not count."""
    calibration = predictor.bundle.calibration
    if calibration is not None and calibration.keep_rate != predictor.model.keep_rate:
        calibration = None
    groups = None
    if any(record.group is not None for record in records):
        groups = [record.image_id if record.group is None else f"group {record.group}" for record in records]
    return measure_trust(predictions, calibration, groups=groups, is_across=split == "val")


def _draw_reliability(report: Report, trust: Trust) -> Figure:
    curves = {"as trained": trust.before.bins}
    error, _, _ = (trust.after or trust.before).calibration_error
    if trust.after is not None:
        curves["calibrated"] = trust.after.bins
    return reliability_diagram(
        curves,
        title=f"{_TITLES[report.split]}: sure and right are {error * 100:.1f} points apart",
        subtitle=f"calibration error over {report.num_images:,} images; dashed: no error",
    )


def _report_json(folder: RunFolder, split: str) -> Path:
    return folder.path / f"evaluation_{split}.json"


def _write(folder: RunFolder, predictions: Predictions, report: Report) -> None:
    """Write the files of a measurement, the report last: it vouches for the others."""
    names = [row.class_name for row in report.per_class]
    save_predictions(folder.predictions / f"{report.split}.npz", predictions, names)
    atomic_write(folder.path / f"evaluation_{report.split}_classes.csv", report.class_table())
    if report.trust is not None:
        save_figure(_draw_reliability(report, report.trust), folder.path / f"reliability_{report.split}.png")
    text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    atomic_write(_report_json(folder, report.split), text + "\n")


def _is_measured(folder: RunFolder, split: str, *, keep_rate: float) -> bool:
    """Tell whether the split's predictions are there and come from the bundle that is there now."""
    report = _report_json(folder, split)
    if not report.is_file() or not (folder.predictions / f"{split}.npz").is_file():
        return False
    saved = folder.read_json(report)
    is_as_recorded: bool = saved.get("keep_rate", 1.0) == keep_rate
    return is_as_recorded and bool(saved.get("bundle_sha256") == read_manifest(folder.bundle).sha256)


def _make_examples(
    predictions: Predictions, rows: Sequence[int], *, source: DataSource, split: str, preprocessing: Preprocessing
) -> list[Example]:
    by_id = {record.image_id: record for record in source.splits[split]}
    probabilities = softmax(predictions.logits)
    names = source.class_names
    examples = []
    for row in rows:
        label = int(predictions.logits[row].argmax())
        votes, grid = predictions.final_votes, predictions.grid
        examples.append(
            Example(
                image=crop_to_view(source.read(by_id[predictions.image_ids[row]]), preprocessing),
                true_name=names[predictions.labels[row]],
                predicted_name=names[label],
                probability=float(probabilities[row, label]),
                votes=None if votes is None or grid is None else votes[row].reshape(grid),
            )
        )
    return examples


def crop_to_view(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the part of a photograph that the model sees, in the photograph's own proportions."""
    rows_share, columns_share = (
        kept / whole for kept, whole in zip(preprocessing.image_size, preprocessing.resize, strict=True)
    )
    left, top = image.width * (1 - columns_share) / 2, image.height * (1 - rows_share) / 2
    return image.crop((round(left), round(top), round(image.width - left), round(image.height - top)))
