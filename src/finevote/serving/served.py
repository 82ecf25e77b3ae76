"""What a server answers with: a predictor, what it is called, and all that is told of it at /v1/model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from finevote.bundle.gallery import read_gallery
from finevote.bundle.manifest import WEIGHTS_NAME
from finevote.data.catalogue import DATASETS
from finevote.errors import ArgumentError
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.ranking import Ranking, check_calibration
from finevote.evaluation.selective import promise_error
from finevote.explanation.explained import VoteMaps
from finevote.onnx_engine import OnnxEngine
from finevote.onnx_model import SUFFIX as ONNX_SUFFIX
from finevote.predictor import Predictor, find_bundle
from finevote.run_folder import RunFolder
from finevote.serving import schemas
from finevote.serving.limits import ImageLimits
from finevote.serving.settings import Settings

_TASK = "fine-grained image classification"
_ERRORS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # looked through for the smallest promise
_MEASURED = ("top_1", "top_5", "macro")


@dataclass(frozen=True)
class Served:
    """A predictor and what is told of it.

    `voting` is None where nothing can be explained, `gallery` where no training photograph can be shown.
    """

    predictor: Predictor
    reference: schemas.ModelReference
    voting: schemas.VotingDetails | None
    figures: tuple[schemas.FigureWithInterval, ...]
    hashes: Mapping[str, str]
    licences: tuple[schemas.Licence, ...]
    versions: Mapping[str, str]
    precision: str = "fp32"
    gallery: Gallery | None = None

    @property
    def is_onnx(self) -> bool:
        """Whether it is an exported file, which predicts and votes, and explains nothing more."""
        return isinstance(self.predictor.engine, OnnxEngine)

    @property
    def has_votes(self) -> bool:
        """Whether answers can say where the votes lie."""
        engine = self.predictor.engine
        return engine.onnx.description.grid is not None if isinstance(engine, OnnxEngine) else self.voting is not None

    def describe(self, settings: Settings, limits: ImageLimits) -> schemas.ModelAnswer:
        """Return what is told at /v1/model."""
        ranking, preprocessing = self.predictor.ranking, self.predictor.preprocessing
        calibration, taxonomy = _calibration(ranking), ranking.taxonomy
        return schemas.ModelAnswer(
            name=self.reference.name,
            task=_TASK,
            engine="onnxruntime" if self.is_onnx else "torch",
            precision=self.precision,
            keep_rate=ranking.keep_rate,
            class_names=list(ranking.class_names),
            taxonomy=None if taxonomy is None else schemas.TaxonomyDetails.model_validate(taxonomy.to_dict()),
            figures=list(self.figures),
            calibration=None if calibration is None else _promises(calibration, ranking),
            preprocessing=schemas.PreprocessingDetails.model_validate(vars(preprocessing)),
            voting=self.voting,
            can=schemas.Abilities(
                sets=calibration is not None,
                verdicts=calibration is not None and bool(calibration.unknown),
                votes=self.has_votes,
                explain=self.voting is not None,
                contrast=self.voting is not None,
                evidence=self.gallery is not None,
                levels=calibration is not None and taxonomy is not None,
            ),
            limits=schemas.LimitDetails(
                max_image_bytes=settings.max_image_bytes,
                max_request_bytes=settings.max_request_bytes,
                max_pixels=settings.max_pixels,
                max_images=settings.max_images,
                formats=[kind.name for kind in limits.kinds],
            ),
            hashes=dict(self.hashes),
            licences=list(self.licences),
            versions=dict(self.versions),
        )


def load_served(settings: Settings) -> Served:
    """Load what is to be served, and let it answer once, so that a model that cannot is found before it is asked.

    Raises:
        FinevoteError: it is not there, is damaged, or cannot run here.
    """
    predictor = Predictor.load(settings.bundle, device=settings.device)
    blank = Image.new("RGB", predictor.preprocessing.image_size[::-1])
    predictor.predict(blank)
    if isinstance(predictor.engine, OnnxEngine):
        return _served_file(predictor, settings)
    return _served_bundle(predictor, settings, blank)


def name_of_model(path: Path) -> str:
    """Return what a model is called by the folder or file that it lies in."""
    path = path.absolute()
    if path.suffix == ONNX_SUFFIX:
        return path.stem
    return path.parent.name if path.name == "bundle" else path.name


def _served_file(predictor: Predictor, settings: Settings) -> Served:
    engine = predictor.engine
    assert isinstance(engine, OnnxEngine)  # noqa: S101  # for the type checker: it was asked before
    described = engine.onnx.description
    return Served(
        predictor,
        schemas.ModelReference(name=settings.name or name_of_model(settings.bundle), sha256=described.bundle_sha256),
        voting=None,
        figures=(),
        hashes={"bundle": described.bundle_sha256, "weights": described.weights_sha256},
        licences=(),
        versions=_versions(described.versions),
        precision=described.precision,
    )


def _served_bundle(predictor: Predictor, settings: Settings, blank: Image.Image) -> Served:
    manifest = predictor.bundle.manifest
    weights = manifest.files[WEIGHTS_NAME].sha256
    maps = predictor.explain(blank).votes if predictor.model.head.votes else None
    return Served(
        predictor,
        schemas.ModelReference(name=settings.name or name_of_model(settings.bundle), sha256=manifest.sha256),
        voting=None if maps is None else _voting(maps),
        figures=(*_of_training(manifest.details), *_of_run(find_bundle(settings.bundle).parent, weights)),
        hashes={"bundle": manifest.sha256, "weights": weights},
        licences=_licences(manifest.details),
        versions=_versions(manifest.versions),
        gallery=_gallery(find_bundle(settings.bundle), keep_rate=predictor.model.keep_rate),
    )


def _gallery(folder: Path, *, keep_rate: float) -> Gallery | None:
    """Return the bundle's gallery if it holds at a keep rate."""
    gallery = read_gallery(folder)
    return gallery if gallery is not None and gallery.keep_rate == keep_rate else None


def _voting(maps: VoteMaps) -> schemas.VotingDetails:
    return schemas.VotingDetails(num_layers=maps.num_layers, num_heads=maps.head_votes.shape[1], grid=maps.grid)


def _of_training(details: Mapping[str, Any]) -> list[schemas.FigureWithInterval]:
    """Return the accuracy on validation that the bundle was chosen by."""
    value, number = details.get("val_top1"), details.get("val_num_images")
    if value is None or not number:
        return []
    low, high = wilson_interval(value * number, number)
    return [
        schemas.FigureWithInterval(
            name="top_1", split="val (which chose the epoch)", value=value, low=low, high=high, num_images=number
        )
    ]


def _of_run(run: Path, weights_sha256: str) -> list[schemas.FigureWithInterval]:
    """Return the figures that the run's reports have of these weights."""
    figures = []
    for split in ("val", "test"):
        report = _read_report(RunFolder(run).evaluation(split).report_json)
        if report.get("weights_sha256") != weights_sha256:
            continue
        for name in _MEASURED:
            measured = report.get(name) or {}
            if "value" in measured:
                ends = {end: measured.get(end) for end in ("low", "high")}
                figures.append(
                    schemas.FigureWithInterval(
                        name=name, split=split, value=measured["value"], num_images=report.get("num_images"), **ends
                    )
                )
    return figures


def _read_report(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # there is none, or it is broken: it is no part of the bundle
        return {}
    return content if isinstance(content, dict) else {}


def _licences(details: Mapping[str, Any]) -> tuple[schemas.Licence, ...]:
    weights, data = details.get("weights") or {}, str(details.get("data", "")).partition("@")[0]
    found = []
    if weights.get("licence"):
        found.append(
            schemas.Licence(
                part=f"weights that training began with: {weights.get('backbone', '')}",
                licence=weights["licence"],
                obligations=weights.get("obligations", ""),
            )
        )
    if data in DATASETS:
        found.append(schemas.Licence(part=f"photographs: {data}", licence=DATASETS[data].licence))
    return tuple(found)


def _versions(found: Mapping[str, str]) -> dict[str, str]:
    return {**found, "serving finevote": version("finevote")}


def _calibration(ranking: Ranking) -> Calibration | None:
    try:
        return check_calibration(ranking.calibration, keep_rate=ranking.keep_rate)
    except ArgumentError:
        return None


def _promises(calibration: Calibration, ranking: Ranking) -> schemas.CalibrationDetails:
    number = len(calibration.labels)
    confidences, is_right = calibration.confidences, calibration.is_right
    errors = [
        error
        for error in _ERRORS
        if confidences is not None
        and is_right is not None
        and promise_error(confidences, np.asarray(is_right), max_error=error) is not None
    ]
    return schemas.CalibrationDetails(
        temperature=calibration.temperature,
        num_images=number,
        largest_coverage=number / (number + 1),
        smallest_false_alarms=1 / (number + 1) if calibration.unknown else None,
        smallest_max_error=errors[0] if errors else None,
        can_name_levels=ranking.taxonomy is not None,
    )
