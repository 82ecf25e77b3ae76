"""The forward pass as a program without Python: of one image size, for any number of images."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from finevote.evaluation.predict import evaluation_mode
from finevote.model import FineGrainedClassifier

INPUT = "images"
MAX_BATCH = 4096


class ProgramOutput(NamedTuple):
    """logits (B, C); embedding (B, D); votes (B, P) final votes on the patches, None for the plain backbone."""

    logits: Tensor
    embedding: Tensor
    votes: Tensor | None = None

    @classmethod
    def names(cls, *, votes: bool) -> tuple[str, ...]:
        """Return the names of the outputs that a program with or without votes has, in their order."""
        return cls._fields if votes else cls._fields[:-1]


class Forward(nn.Module):
    """A classifier's forward pass with flat outputs, as exported programs have them."""

    def __init__(self, model: FineGrainedClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the fields of `ProgramOutput`, without votes where the model has none."""
        output = self.model(images)
        if output.votes is None:
            return output.logits, output.embedding
        return output.logits, output.embedding, output.votes.per_patch()


def export_program(model: FineGrainedClassifier, *, image_size: tuple[int, int]) -> torch.export.ExportedProgram:
    """Return the model's forward pass in evaluation as a program for normalised images (B, 3, rows, columns).

    B may be 1 to `MAX_BATCH`; the image size, its position embeddings, the budget and the keep rate are part of it.

    Args:
        model: on the CPU.
        image_size: rows, columns in px.
    """
    two = torch.zeros(2, 3, *image_size)  # one would be taken for a constant
    sizes = {INPUT: {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}}
    with evaluation_mode(model), torch.no_grad(), _quiet():
        return torch.export.export(Forward(model), (two,), dynamic_shapes=sizes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters of torch warn of from users: it is about torch's own code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
