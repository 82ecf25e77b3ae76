"""Smaller numbers in an ONNX graph: half precision, and eight bits set by how training images look inside."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finevote.export.program import INPUT
from finevote.onnx_model import import_onnxruntime

# What ranks patches and counts votes stays in float32, as under autocast in training.
_EXACT_OPS = (
    "CumSum",
    "Equal",
    "GatherElements",
    "Greater",
    "LayerNormalization",
    "ReduceMean",
    "ReduceSum",
    "ScatterElements",
    "Softmax",
    "TopK",
)
_QUANTISED_OPS = ("MatMul", "Gemm")  # the patch embedding, a convolution, loses most and costs least


def to_half(model: Any) -> Any:
    """Return an ONNX graph with weights and matrix products in half precision; inputs and outputs stay float32."""
    converter = import_onnxruntime("transformers.float16")
    blocked = [*converter.DEFAULT_OP_BLOCK_LIST, *_EXACT_OPS]
    return converter.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked)


def to_int8(model: Any, batches: Callable[[], Iterator[NDArray[np.float32]]]) -> Any:
    """Return an ONNX graph whose matrix products have 8-bit weights and activations, quantised statically.

    Weights have a scale for each output channel, activations the range that they had over the calibrating images.

    Args:
        model: an `onnx.ModelProto` in float32.
        batches: yields normalised images (B, 3, rows, columns) that the ranges are taken from.
    """
    import onnx

    quantization = import_onnxruntime("quantization")
    shapes = import_onnxruntime("quantization.shape_inference")
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, small = (str(Path(folder) / name) for name in ("whole.onnx", "prepared.onnx", "small.onnx"))
        onnx.save(model, whole)
        shapes.quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            small,
            _reader(quantization.CalibrationDataReader, batches()),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED_OPS),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(small)


def _reader(base: Any, batches: Iterator[NDArray[np.float32]]) -> Any:
    class Reader(base):  # type: ignore[misc]  # onnxruntime asks for a class of its own
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            images = next(batches, None)
            return None if images is None else {INPUT: images}

    return Reader()
