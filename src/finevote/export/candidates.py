"""What may become an exported file: a program that can be run, and written once it has been found to agree."""

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from finevote.bundle.manifest import WEIGHTS_NAME
from finevote.bundle.read import Bundle
from finevote.data.resizing import model_input, read_pixels
from finevote.data.subset import some_of_each_class
from finevote.errors import ExportError
from finevote.evaluation import conformal, unknown
from finevote.evaluation.calibrator import Calibration
from finevote.export.choices import Precision
from finevote.export.onnx_graph import to_onnx
from finevote.export.parity import Parity
from finevote.export.precision import to_half, to_int8
from finevote.export.program import export_program
from finevote.machine import describe_versions
from finevote.onnx_model import OnnxDescription, OnnxModel
from finevote.types import DataSource, Preprocessing, Record

Images = NDArray[np.float32]  # (B, 3, rows, columns), normalised
NUM_RANGING = 200  # training images, about, whose activations set the ranges of eight bits
_BATCH = 16
_MAX_PROTOBUF_BYTES = 2**31 - 1
_COVERAGES, _FALSE_ALARMS = (0.8, 0.9, 0.95, 0.99), (0.01, 0.05, 0.1)


class Candidate(Protocol):
    """A program that is not yet trusted."""

    def run(self, images: Images) -> NDArray[np.float32]:
        """Return logits (B, C) of normalised images."""

    def content(self, parity: Parity) -> bytes:
        """Return the file, which tells also how the program was found to agree."""


class ProgramCandidate:
    """A program of torch.export, as it is read back from its file."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.program = export_program(bundle.model, image_size=bundle.preprocessing.image_size)
        saved = io.BytesIO()
        torch.export.save(self.program, saved)
        saved.seek(0)
        self.module = torch.export.load(saved).module()

    def run(self, images: Images) -> NDArray[np.float32]:
        """Return logits (B, C) of normalised images."""
        with torch.inference_mode():
            return np.asarray(self.module(torch.from_numpy(images))[0].numpy())

    def content(self, parity: Parity) -> bytes:
        """Return the .pt2 file, with `finevote.json` beside the program in it."""
        file = io.BytesIO()
        described = describe(self.bundle, precision=Precision.FP32, parity=parity)
        text = json.dumps(described.to_metadata(self.bundle.calibration))
        torch.export.save(self.program, file, extra_files={"finevote.json": text})
        return file.getvalue()


class OnnxCandidate:
    """An ONNX graph, as ONNX Runtime runs it."""

    def __init__(self, bundle: Bundle, source: DataSource, *, precision: Precision, opset: int) -> None:
        self.bundle = bundle
        self.precision = precision
        program = export_program(bundle.model, image_size=bundle.preprocessing.image_size)
        graph = to_onnx(program, votes=bundle.model.head.votes, opset=opset)
        if precision is Precision.FP16:
            graph = to_half(graph)
        elif precision is Precision.INT8:
            ranging = some_of_each_class(source.splits["train"], most=_images_per_class(bundle))
            graph = to_int8(graph, lambda: read_batches(source, ranging, bundle.preprocessing))
        self.graph = graph
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            path.write_bytes(self.content(None))
            self.model = OnnxModel(path)

    def run(self, images: Images) -> NDArray[np.float32]:
        """Return logits (B, C) of normalised images."""
        return self.model.run(images).logits

    def content(self, parity: Parity | None) -> bytes:
        """Return the .onnx file."""
        import onnx

        described = describe(self.bundle, precision=self.precision, parity=parity)
        onnx.helper.set_model_props(self.graph, described.to_metadata(self.bundle.calibration))
        if (size := self.graph.ByteSize()) > _MAX_PROTOBUF_BYTES:
            raise ExportError(
                f"the graph has {size / 1e9:.1f} GB, and one ONNX file holds 2.1: export --precision fp16 or int8, or "
                "--format torch"
            )
        return bytes(self.graph.SerializeToString())


def describe(bundle: Bundle, *, precision: Precision, parity: Parity | None) -> OnnxDescription:
    """Return what an exported file says of itself."""
    manifest, calibration = bundle.manifest, bundle.calibration
    has_votes = bundle.model.head.votes
    return OnnxDescription(
        class_names=bundle.class_names,
        preprocessing=bundle.preprocessing,
        precision=str(precision),
        keep_rate=bundle.model.keep_rate,
        bundle_sha256=manifest.sha256,
        weights_sha256=manifest.files[WEIGHTS_NAME].sha256,
        temperature=1.0 if calibration is None else calibration.temperature,
        grid=tuple(bundle.model.backbone.grid) if has_votes else None,
        taxonomy=bundle.taxonomy,
        thresholds={} if calibration is None else some_thresholds(calibration),
        parity={} if parity is None else parity.to_dict(),
        versions=describe_versions(),
    )


def some_thresholds(calibration: Calibration) -> dict[str, Any]:
    """Return the thresholds of a few promises as JSON: {"sets": {method: {coverage: score}}, "unknown": likewise}.

    A class is in the set of an image where its score is at most the threshold, an image unknown where its score is
    above it; what cannot be promised from so few images is None.
    """
    return {
        "sets": {
            method: {
                f"{share:g}": _finite(conformal.conformal_threshold(scores, coverage=share)) for share in _COVERAGES
            }
            for method, scores in calibration.scores.items()
        },
        "unknown": {
            method: {
                f"{share:g}": _finite(unknown.alarm_threshold(scores, false_alarms=share)) for share in _FALSE_ALARMS
            }
            for method, scores in calibration.unknown.items()
        },
    }


def read_batches(
    source: DataSource,
    records: Sequence[Record],
    preprocessing: Preprocessing,
    *,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Images]:
    """Yield records as normalised images, prepared as a runtime without torch prepares them."""
    for start in range(0, len(records), _BATCH):
        batch = records[start : start + _BATCH]
        pixels = [read_pixels(partial(source.read, record), preprocessing) for record in batch]
        yield model_input(np.stack(pixels), preprocessing)
        if advance is not None:
            advance(len(batch))


def _images_per_class(bundle: Bundle) -> int:
    return max(1, NUM_RANGING // len(bundle.class_names))


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
