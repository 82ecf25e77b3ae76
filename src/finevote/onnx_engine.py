"""An exported file as an engine of `Predictor`: the same answers without PyTorch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.resizing import model_input, read_pixels
from finevote.errors import ArgumentError
from finevote.evaluation.fusion import joint_logits
from finevote.evaluation.ranking import Looked, Outputs, Ranking
from finevote.onnx_model import OnnxModel


class OnnxEngine:
    """Runs an exported file.

    Args:
        path: as `finevote export` wrote it.
        keep_rate: what is built into the file, or None.

    Raises:
        ArgumentError: it was exported at another keep rate.
        BundleError: the file is missing, or not from finevote.
        MissingExtraError: onnxruntime is not installed.
    """

    def __init__(self, path: Path, *, keep_rate: float | None = None) -> None:
        self.onnx = OnnxModel(path)
        described = self.onnx.description
        self.preprocessing = described.preprocessing
        if keep_rate not in (None, described.keep_rate):
            raise ArgumentError(
                f"{path} was exported at keep rate {described.keep_rate:g}, which is built into it: export the run at "
                "another, or leave out --keep-rate"
            )

    @property
    def ranking(self) -> Ranking:
        """What turns logits into answers."""
        described = self.onnx.description
        return Ranking(described.class_names, self.onnx.calibration, described.taxonomy, described.keep_rate)

    def prepare(self, read: Callable[[], Image.Image]) -> NDArray[np.uint8]:
        """Return the RGB image that `read` gives, resized, (h, w, 3)."""
        return read_pixels(read, self.preprocessing)

    def forward(self, prepared: Sequence[Any]) -> Outputs:
        """Return logits (B, C) and embeddings (B, D)."""
        looked = self.look(prepared)
        return looked.logits, looked.embeddings

    def look(self, prepared: Sequence[Any]) -> Looked:
        """Return logits (B, C), embeddings (B, D), and votes (B, rows, columns) where the classifier has them."""
        output = self.onnx.run(model_input(np.stack(prepared), self.preprocessing))
        grid, votes = self.onnx.description.grid, output.votes
        on_grid = None if votes is None or grid is None else votes.reshape(-1, *grid)
        return Looked(joint_logits(output.logits[:, None]), output.embedding, on_grid)
