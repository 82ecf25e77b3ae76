"""A run exported: converted, compared with its bundle on validation photographs, and written only if it agrees."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from finevote.errors import ExportError
from finevote.export.candidates import Candidate, OnnxCandidate, ProgramCandidate, read_batches
from finevote.export.choices import DEFAULT_OPSET, MAX_DROP, MIN_AGREEMENT, Format, Precision
from finevote.export.onnx_graph import check_opset
from finevote.export.parity import Parity, check_parity, compare_logits
from finevote.files import atomic_write
from finevote.measure.opening import open_split
from finevote.onnx_model import SUFFIX as ONNX_SUFFIX
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.types import DataSource

_logger = logging.getLogger(__name__)

_SUFFIXES = {Format.ONNX: ONNX_SUFFIX, Format.TORCH: ".pt2"}


@dataclass(frozen=True)
class Exported:
    """A written program: where it is, its size, how it compares with the bundle, and the seconds that it took."""

    path: Path
    size_bytes: int
    parity: Parity
    precision: Precision
    seconds: float


def export(
    run: Path | str,
    *,
    format: Format = Format.ONNX,  # noqa: A002  # as the command's option is called
    precision: Precision = Precision.FP32,
    opset: int = DEFAULT_OPSET,
    out: Path | None = None,
    data: str | Path | None = None,
    max_drop: float = MAX_DROP,
    min_agreement: float = MIN_AGREEMENT,
) -> Exported:
    """Write a run's classifier as one file for another runtime, if it answers as the bundle does.

    Every validation photograph is read, prepared and classified by the bundle and by the exported file. In float32 all
    logits must agree within `parity.TOLERANCE`; with smaller numbers the accuracy may fall by `max_drop`, and
    `min_agreement` of the photographs must keep their class.

    Args:
        run: a folder that `finevote fit` has finished.
        format: "onnx", or "torch" for a program of torch.export.
        precision: "fp32"; of ONNX also "fp16", or "int8", whose ranges are those of training images.
        opset: version of ONNX's operators.
        out: the file; None for `export/` of the run.
        data: where the data set lies now, if it has moved.
        max_drop: share of the validation images.
        min_agreement: likewise.

    Raises:
        ArgumentError: there is no such opset.
        BundleError: the bundle is missing or not as it was written.
        DataError: the run has no validation split, or the data set lacks images of it.
        ExportError: the exported program does not answer as the bundle, or the wish cannot be met.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        StorageError: the file cannot be written.
    """
    start = time.monotonic()
    check_opset(opset)
    if format is Format.TORCH and precision is not Precision.FP32:
        raise ExportError(f"a program of torch.export is exported in fp32 only, not {precision}: use --format onnx")
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path)
    bundle = predictor.bundle
    if bundle.added_names:
        _logger.warning(
            "classes that were added are left out of the file, which has the trained ones: %s",
            ", ".join(bundle.added_names),
        )
    source = open_split(folder, bundle, split="val", data=data)
    path = out or folder.path / "export" / f"model-{precision}{_SUFFIXES[format]}"
    candidate: Candidate
    if format is Format.TORCH:
        candidate = ProgramCandidate(bundle)
    else:
        candidate = OnnxCandidate(bundle, source, precision=precision, opset=opset)
    parity = _compare(predictor, candidate, source)
    check_parity(parity, precision=precision, max_drop=max_drop, min_agreement=min_agreement)
    atomic_write(path, candidate.content(parity))
    return Exported(path, path.stat().st_size, parity, precision, time.monotonic() - start)


def _compare(predictor: Predictor, candidate: Candidate, source: DataSource) -> Parity:
    """Return how a candidate's logits lie beside the bundle's, each from the photographs on."""
    records = source.splits["val"]
    with Meter("the bundle's answers", total=len(records)) as meter:
        num_workers = predictor.bundle.config.data.num_workers
        known = predictor.predict_records(source, "val", num_workers=num_workers, advance=meter.advance)
    with Meter("the exported answers", total=len(records)) as meter:
        batches = read_batches(source, records, predictor.preprocessing, advance=meter.advance)
        logits = np.concatenate([candidate.run(images) for images in batches])
    return compare_logits(known.logits, logits, known.labels)
