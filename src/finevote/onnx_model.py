"""A classifier in one ONNX file: the graph, and beside it all that a bundle says. It is read and run without torch.

Its metadata has two entries of ours: "finevote", JSON with what `OnnxDescription` holds, and "finevote.calibration",
the calibration's arrays as base64 of safetensors.
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from finevote.bundle.calibration import as_arrays, from_arrays
from finevote.errors import BundleError, MissingExtraError
from finevote.evaluation.calibrator import Calibration
from finevote.types import Preprocessing, Taxonomy

FORMAT_VERSION = 1
SUFFIX = ".onnx"
_ENTRY, _CALIBRATION_ENTRY = "finevote", "finevote.calibration"
_ADVICE = "export it anew with `finevote export`"


@dataclass(frozen=True)
class OnnxDescription:
    """What an exported file says of itself.

    `parity` tells how it was checked against the bundle, `thresholds` what a few promises amount to for programs that
    know nothing of finevote; the calibration gives those of any.
    """

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str
    keep_rate: float
    bundle_sha256: str
    weights_sha256: str
    temperature: float
    grid: tuple[int, int] | None = None
    taxonomy: Taxonomy | None = None
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_metadata(self, calibration: Calibration | None) -> dict[str, str]:
        """Return the entries of an ONNX file's metadata."""
        values = asdict(self) | {"taxonomy": self.taxonomy and self.taxonomy.to_dict()}
        entries = {_ENTRY: json.dumps({"format_version": FORMAT_VERSION, **values}, ensure_ascii=False)}
        if calibration is not None:
            entries[_CALIBRATION_ENTRY] = base64.b64encode(save(as_arrays(calibration))).decode()
        return entries

    @classmethod
    def from_metadata(cls, entries: Mapping[str, str], *, name: str) -> tuple[Self, Calibration | None]:
        """Return what `to_metadata` gave; `name` says in messages whose it is.

        Raises:
            BundleError: the file is not from finevote, of another format, or damaged.
        """
        if _ENTRY not in entries:
            raise BundleError(f"{name} was not exported by finevote: it says nothing of classes and preprocessing")
        try:
            values = json.loads(entries[_ENTRY])
            if (found := values.pop("format_version")) != FORMAT_VERSION:
                raise BundleError(f"{name} has format version {found}, but this finevote reads {FORMAT_VERSION}")
            sizes = {key: _as_tuple(value) for key, value in values.pop("preprocessing").items()}
            taxonomy, grid = values.pop("taxonomy"), values.pop("grid")
            described = cls(
                class_names=tuple(values.pop("class_names")),
                preprocessing=Preprocessing(**sizes),
                grid=grid and tuple(grid),
                taxonomy=taxonomy and Taxonomy.from_dict(taxonomy),
                **values,
            )
            content = entries.get(_CALIBRATION_ENTRY)
            return described, None if content is None else from_arrays(load(base64.b64decode(content, validate=True)))
        except (ValueError, TypeError, KeyError, AttributeError, SafetensorError) as error:
            raise BundleError(f"what {name} says of itself is damaged ({error}): {_ADVICE}") from error


class OnnxOutput(NamedTuple):
    """logits (B, C), embedding (B, D), votes (B, P) or None for the plain backbone; float32."""

    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    votes: NDArray[np.float32] | None


class OnnxModel:
    """An exported file, ready to run on the CPU.

    Args:
        path: as `finevote export` wrote it.
        num_threads: that one run may use; 0 for all cores.

    Raises:
        BundleError: it is missing, no ONNX file, or not from finevote.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: Path | str, *, num_threads: int = 0) -> None:
        self.path = Path(path)
        self._session = _open_session(self.path, num_threads=num_threads)
        entries: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.description, self.calibration = OnnxDescription.from_metadata(entries, name=str(path))
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._input: str = self._session.get_inputs()[0].name

    def run(self, images: NDArray[np.float32]) -> OnnxOutput:
        """Return the outputs for normalised images (B, 3, rows, columns)."""
        found = dict(zip(self._outputs, self._session.run(self._outputs, {self._input: images}), strict=True))
        return OnnxOutput(found["logits"], found["embedding"], found.get("votes"))


def import_onnxruntime(part: str = "") -> Any:
    """Return ONNX Runtime, or a module in it, with its telemetry off.

    Its published builds send events to their maker and leave an identifier in the user's cache unless they are told not
    to before they start; ORT_DISABLE_TELEMETRY=0 in the environment lets them.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return import_module(f"onnxruntime.{part}" if part else "onnxruntime")
    except ImportError:
        raise MissingExtraError("onnxruntime", "onnx") from None


def _open_session(path: Path, *, num_threads: int) -> Any:
    if not path.is_file():
        raise BundleError(f"there is no file {path}: {_ADVICE}")
    onnxruntime = import_onnxruntime()
    onnxruntime.set_default_logger_severity(3)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # onnxruntime's own exceptions share no base
        raise BundleError(f"cannot read {path} as ONNX ({' '.join(str(error).split())[:200]}): {_ADVICE}") from None


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
