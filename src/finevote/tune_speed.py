"""How few patches a finished run needs: accuracy on validation and time over the keep rate, and the rate to use."""

import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from finevote.build import build_eval_loader, build_model
from finevote.bundle.gallery import read_gallery
from finevote.bundle.manifest import WEIGHTS_NAME
from finevote.bundle.read import Bundle
from finevote.bundle.record import record_keep_rate
from finevote.config import VotingConfig
from finevote.errors import ArgumentError
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.paired import paired_test
from finevote.evaluation.predict import evaluation_mode
from finevote.evaluation.rows import subject_names
from finevote.evaluation.shares import Groups, share
from finevote.explanation.figures import save_figure
from finevote.explanation.speed import Mark, speed_curve
from finevote.files import atomic_write
from finevote.measure.calibrate import calibration_of
from finevote.measure.opening import open_split
from finevote.model import FineGrainedClassifier
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import DataSource

_logger = logging.getLogger(__name__)

RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
_NUM_ROUNDS = 9
_EVALUATION_BATCH = 32
_LEAST_SAVING = 0.02  # of the time at keep rate 1; less is the noise of a clock, and no reason to leave patches out


class SpeedPoint(NamedTuple):
    """What one keep rate gives: shares in [0, 1] with the 95% interval, and times as medians of ratios.

    `num_lost` images are named right at keep rate 1 but wrong here, `num_won` the other way round; `p_value` is that of
    `paired_test` between the two.
    """

    keep_rate: float
    num_correct: int
    accuracy: float
    low: float
    high: float
    num_lost: int
    num_won: int
    p_value: float
    time_ratio: float  # to keep rate 1
    plain_time_ratio: float  # to the plain backbone with a linear classifier


@dataclass(frozen=True)
class SpeedCurve:
    """The keep rates measured, from 1 down, and the one chosen: `keep_rate`. `max_drop` is in points."""

    run: str
    data: str
    split: str
    num_images: int
    weights_sha256: str
    device: str
    batch_size: int
    max_drop: float
    keep_rate: float
    points: tuple[SpeedPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the curve ready for JSON."""
        return {**asdict(self), "points": [point._asdict() for point in self.points]}

    @property
    def chosen(self) -> SpeedPoint:
        """The point of the chosen keep rate."""
        return next(point for point in self.points if point.keep_rate == self.keep_rate)

    @property
    def summary(self) -> str:
        """What was chosen, in a sentence."""
        exact, chosen = self.points[0], self.chosen
        drop = 100 * (exact.accuracy - chosen.accuracy)
        change = f"{abs(drop):.2f} points {'lower' if drop > 0 else 'higher'}" if drop else "as accurate as 1"
        return f"Keep rate {chosen.keep_rate:g}: {chosen.plain_time_ratio:.2f} of plain's time, {change}"

    def table(self) -> RenderableType:
        """Return the curve as `rich` prints it."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in ("keep rate", "accuracy", "95% interval", "lost", "won", "p", "time", "of plain"):
            table.add_column(name, justify="right", no_wrap=True)
        for point in self.points:
            table.add_row(
                f"{'*' if point == self.chosen else ''}{point.keep_rate:g}",
                f"{point.accuracy:.2%}",
                f"{point.low * 100:.1f} to {point.high * 100:.1f}%",
                f"{point.num_lost}",
                f"{point.num_won}",
                f"{point.p_value:.2g}",
                f"{point.time_ratio:.2f}",
                f"{point.plain_time_ratio:.2f}",
                style="bold" if point == self.chosen else "",
            )
        notes = (
            f"\n{self.summary}\n"
            f"* is the fastest within {self.max_drop:g} points of keep rate 1, chosen on {self.num_images:,} "
            f"{self.split} images, of which one is {100 / self.num_images:.2g} points. Lost, won and the exact paired "
            f"p are against keep rate 1. Times: median ratios, {self.batch_size} images at once, {self.device}."
        )
        return Group(Text(f"{self.run}: {self.split} split of {self.data}", style="bold"), "", table, Text(notes))


def tune_speed(
    run: Path | str,
    *,
    max_drop: float = 0.2,
    rates: Sequence[float] = RATES,
    data: str | Path | None = None,
    batch_size: int = 8,
    dry_run: bool = False,
    on_curve: Callable[[SpeedCurve], object] | None = None,
) -> SpeedCurve:
    """Measure keep rates on the validation split and make the fastest that loses little the bundle's own.

    Writes `speed.json` and `speed.png` into the run, then the keep rate into its bundle, and a
    calibration at it. The test split stays closed.

    Args:
        run: a folder that `finevote fit` has finished.
        max_drop: points of accuracy that a keep rate may lose against 1.
        rates: keep rates in (0, 1]; 1 is always among those measured.
        data: where the data set lies now, if it has moved.
        batch_size: images of a timed forward pass.
        dry_run: write nothing.
        on_curve: called with the curve before it is written, so that it is not lost if that fails.

    Raises:
        ArgumentError: the run is a plain backbone, or a rate or `max_drop` is out of range.
        BundleError, DataError, RunError, StorageError: as `evaluate`.
    """
    if not (math.isfinite(max_drop) and max_drop >= 0):
        raise ArgumentError(f"max_drop={max_drop:g} must be 0 or more points, e.g. 0.2")
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path, device="auto")
    model, bundle = predictor.model, predictor.bundle
    if not model.head.votes:
        raise ArgumentError(f"{run} is a plain backbone, without votes to rank patches by: there is nothing to tune")
    ordered = sorted({1.0, *(model.head.reduction.check(rate) for rate in rates)}, reverse=True)
    source = open_split(folder, bundle, split="val", data=data)
    is_right = _name_right(predictor, source, ordered)
    seconds = time_forwards(_forwards(bundle, predictor.device, ordered, batch_size=batch_size))
    points = _make_points(ordered, is_right, seconds, groups=subject_names(source.splits["val"]))
    curve = SpeedCurve(
        run=str(run),
        data=source.name,
        split="val",
        num_images=is_right.shape[1],
        weights_sha256=bundle.manifest.files[WEIGHTS_NAME].sha256,
        device=str(predictor.device),
        batch_size=batch_size,
        max_drop=max_drop,
        keep_rate=choose_rate(points, max_drop=max_drop),
        points=points,
    )
    if on_curve is not None:
        on_curve(curve)
    if not dry_run:
        _record(folder, curve, _calibration_at(curve.keep_rate, predictor, source))
    return curve


def choose_rate(points: Sequence[SpeedPoint], *, max_drop: float) -> float:
    """Return the keep rate of the fastest point that is at most `max_drop` points below the first, which is exact.

    One that saves less than 2% of the time is not worth it: then it is the first.
    """
    lowest = points[0].accuracy - max_drop / 100 - 1e-9  # a drop of exactly that many points is allowed
    allowed = [point for point in points if point.accuracy >= lowest]
    fastest = min(allowed, key=lambda point: point.time_ratio)
    return fastest.keep_rate if fastest.time_ratio <= 1 - _LEAST_SAVING else points[0].keep_rate


def time_forwards(forwards: Sequence[Callable[[], object]], *, num_rounds: int = _NUM_ROUNDS) -> NDArray[np.float64]:
    """Return the times in s, (calls, rounds); calls take turns, so that a change of the machine's speed meets all."""
    seconds: list[list[float]] = [[] for _ in forwards]
    for turn in range(1 + num_rounds):  # the first warms up
        for number, forward in enumerate(forwards):
            start = time.perf_counter()
            forward()
            if turn:
                seconds[number].append(time.perf_counter() - start)
    return np.array(seconds)


def _forwards(
    bundle: Bundle, device: torch.device, rates: Sequence[float], *, batch_size: int
) -> list[Callable[[], object]]:
    """Return a forward pass at each rate, and last that of the plain backbone."""
    images = torch.rand(batch_size, 3, *bundle.preprocessing.image_size, generator=torch.Generator().manual_seed(0))
    images = images.to(device)
    plain = _build_plain(bundle).to(device).eval()
    return [*(partial(_forward_at, bundle.model, images, rate) for rate in rates), partial(_forward, plain, images)]


def _build_plain(bundle: Bundle) -> FineGrainedClassifier:
    """Return the same backbone without votes, at random: only its time counts."""
    config = bundle.config
    plain = config.model_copy(
        update={
            "model": config.model.model_copy(update={"voting": VotingConfig(enabled=False)}),
            "training": config.training.model_copy(update={"keep_rate": 1.0}),
        }
    )
    return build_model(plain, num_classes=len(bundle.class_names), load_weights=False)


def _forward_at(model: FineGrainedClassifier, images: Tensor, rate: float) -> None:
    model.set_keep_rate(rate)
    _forward(model, images)


@torch.inference_mode()
def _forward(model: nn.Module, images: Tensor) -> None:
    model(images)
    if images.device.type == "cuda":
        torch.cuda.synchronize(images.device)


def _name_right(predictor: Predictor, source: DataSource, rates: Sequence[float]) -> NDArray[np.bool_]:
    """Return whether each image is named right at each rate, (rates, n); each image is read once."""
    model, records = predictor.model, source.splits["val"]
    loader = build_eval_loader(
        records,
        read=source.read,
        preprocessing=predictor.preprocessing,
        batch_size=_EVALUATION_BATCH,
        num_workers=predictor.bundle.config.data.num_workers,
    )
    batches = []
    with Meter("tune speed", total=len(records)) as meter, evaluation_mode(model), torch.inference_mode():
        for batch in loader:
            images, labels = batch.images.to(predictor.device), batch.labels.to(predictor.device)
            rows = []
            for rate in rates:
                model.set_keep_rate(rate)
                rows.append(model(images).logits.argmax(1) == labels)  # (B,)
            batches.append(torch.stack(rows).cpu().numpy())  # (rates, B)
            meter.advance(len(labels))
    return np.concatenate(batches, axis=1)


def _make_points(
    rates: Sequence[float], is_right: NDArray[np.bool_], seconds: NDArray[np.float64], *, groups: Groups | None
) -> tuple[SpeedPoint, ...]:
    """Return the points; `seconds` (rates + 1, rounds) are those of the rates, and last of the plain backbone."""
    exact = is_right[0]
    time_ratios, plain_ratios = (np.median(seconds / seconds[other], axis=1).tolist() for other in (0, -1))
    points = []
    for number, (rate, right) in enumerate(zip(rates, is_right, strict=True)):
        points.append(
            SpeedPoint(
                rate,
                int(right.sum()),
                *share(right, groups=groups)[:3],
                *paired_test(exact, right, groups=groups),
                time_ratio=time_ratios[number],
                plain_time_ratio=plain_ratios[number],
            )
        )
    return tuple(points)


def _calibration_at(keep_rate: float, predictor: Predictor, source: DataSource) -> Calibration | None:
    """Return what validation tells of the model at a keep rate; None where its bundle has that already."""
    known = predictor.bundle.calibration
    if known is not None and known.keep_rate == keep_rate:
        return None
    predictor.model.set_keep_rate(keep_rate)
    return calibration_of(predictor, source)


def _record(folder: RunFolder, curve: SpeedCurve, calibration: Calibration | None) -> None:
    """Write the curve and its picture, then the keep rate and the calibration at it into the bundle."""
    atomic_write(folder.speed_json, json.dumps(curve.to_dict(), indent=1, ensure_ascii=False) + "\n")
    marks = [Mark(p.keep_rate, p.plain_time_ratio, p.accuracy, p.low, p.high) for p in curve.points]
    figure = speed_curve(
        marks,
        chosen=curve.keep_rate,
        tolerated=curve.points[0].accuracy - curve.max_drop / 100,
        title=curve.summary,
        subtitle=f"accuracy on {curve.num_images:,} {curve.split} images by keep rate, with 95% intervals; dashed: "
        f"{curve.max_drop:g} points below 1",
    )
    save_figure(figure, folder.speed_png)
    chosen = curve.chosen
    details = {
        "max_drop": curve.max_drop,
        "split": curve.split,
        "num_images": curve.num_images,
        "accuracy": chosen.accuracy,
        "accuracy_at_1": curve.points[0].accuracy,
        "plain_time_ratio": chosen.plain_time_ratio,
    }
    record_keep_rate(folder.bundle, curve.keep_rate, details=details, calibration=calibration)
    gallery = read_gallery(folder.bundle)
    if gallery is not None and gallery.keep_rate != curve.keep_rate:
        advice = f"make it anew with `finevote gallery {folder.path}`"
        _logger.warning("the bundle's gallery is of keep rate %g: %s", gallery.keep_rate, advice)
