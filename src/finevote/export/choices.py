"""What can be chosen of an export. Imports nothing heavy, so that the command's help is quick."""

from enum import StrEnum

OPSETS = range(18, 24)
DEFAULT_OPSET = 18
MAX_DROP, MIN_AGREEMENT = 0.01, 0.95  # shares of the validation images


class Format(StrEnum):
    """What a run can be exported as."""

    ONNX = "onnx"
    TORCH = "torch"


class Precision(StrEnum):
    """The numbers that an exported program computes with."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
