"""From a program to an ONNX graph."""

import logging
import warnings
from typing import Any

import torch

from finevote.errors import ArgumentError, MissingExtraError
from finevote.export.choices import DEFAULT_OPSET, OPSETS
from finevote.export.program import INPUT, ProgramOutput


def check_opset(opset: int) -> None:
    """Raise ArgumentError unless graphs can be written with this version of ONNX's operators."""
    if opset not in OPSETS:
        raise ArgumentError(f"opset {opset} cannot be written: allowed are {OPSETS.start} to {OPSETS.stop - 1}")


def to_onnx(program: torch.export.ExportedProgram, *, votes: bool, opset: int = DEFAULT_OPSET) -> Any:
    """Return a program of `export_program` as an `onnx.ModelProto`, its first axes named "batch".

    torch sorts stably, equal values by the lower place; so does ONNX Runtime's TopK, which stands in for it.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingExtraError("onnxscript", "onnx") from None
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    names = ProgramOutput.names(votes=votes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=list(names),
            custom_translation_table={torch.ops.aten.sort.stable: _stable_sort()},
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx gave no program")
    model = exported.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def _stable_sort() -> Any:
    from onnxscript import opset18

    op: Any = opset18  # its types admit less than it does

    def sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:  # noqa: ARG001, FBT001, FBT002
        length = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
        return op.TopK(values, length, axis=dim, largest=int(descending), sorted=1)

    return sort
