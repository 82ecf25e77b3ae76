"""A bundle's model as an engine of `Predictor`: photographs as tensors, logits out, in PyTorch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from finevote.build import build_eval_loader
from finevote.bundle.gallery import read_gallery
from finevote.bundle.read import Bundle
from finevote.data.given import Photograph
from finevote.data.transforms import read_resized
from finevote.data.views import as_resized, view_cuts
from finevote.devices import find_device
from finevote.errors import ArgumentError
from finevote.evaluation.addition import extended_logits, joined_gallery, warn_of_keep_rate
from finevote.evaluation.fusion import joint_logits
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.predict import evaluation_mode, predict
from finevote.evaluation.ranking import Looked, Outputs, Ranking
from finevote.explaining import Asked, Question, explain_each
from finevote.explanation.explained import Explanation
from finevote.types import PLAIN, DataSource, ModelOutput, Predictions


class TorchEngine:
    """Runs a bundle's model.

    Args:
        bundle: as `load_bundle` gives it.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU where there is one.
        views: of each photograph that outputs are averaged over: "plain", "flip", "five-crop" or "ten-crop".
        keep_rate: share of patches that each reducing layer keeps (docs/method.md, 10); None for the bundle's.
        folder: where the bundle lies, to read its gallery when an explanation needs it; None for no gallery.

    Raises:
        ArgumentError: there is no such device, there are no such views, or the model cannot keep patches at that rate.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: torch.device | str = "cpu",
        views: str = PLAIN,
        keep_rate: float | None = None,
        folder: Path | None = None,
    ) -> None:
        self.bundle = bundle
        self.preprocessing = bundle.preprocessing
        self.device = find_device(device)
        self.model = bundle.model.to(self.device).eval()
        self.views = views
        self.folder = folder
        self._cuts = view_cuts(bundle.preprocessing, views=views)
        if keep_rate is not None:
            self.model.set_keep_rate(keep_rate)
        warn_of_keep_rate(bundle.additions, keep_rate=self.model.keep_rate)

    @cached_property
    def gallery(self) -> Gallery | None:
        """The training images that the bundle remembers, and those of added classes; None without a gallery.

        Raises:
            BundleError: it is damaged.
        """
        found = None if self.folder is None else read_gallery(self.folder)
        return None if found is None else joined_gallery(found, self.bundle.additions)

    @property
    def ranking(self) -> Ranking:
        """What turns logits into answers, at the keep rate that the model has now."""
        bundle = self.bundle
        return Ranking(
            class_names=bundle.all_class_names,
            calibration=bundle.calibration,
            taxonomy=bundle.taxonomy,
            keep_rate=self.model.keep_rate,
            views=self.views,
            added=bundle.added_names,
        )

    def prepare(self, read: Callable[[], Image.Image]) -> Tensor:
        """Return the RGB image that `read` gives, resized, (3, h, w) uint8."""
        return read_resized(read, self.preprocessing)

    def forward(self, prepared: Sequence[Tensor]) -> Outputs:
        """Return logits (B, C) and embeddings (B, D), averaged over the views."""
        looked = self.look(prepared)
        return looked.logits, looked.embeddings

    def look(self, prepared: Sequence[Tensor]) -> Looked:
        """Return logits (B, C), of added classes too, and embeddings (B, D), averaged over the views, and votes.

        These are (B, rows, columns), of the plain view.
        """
        images = torch.stack(list(prepared)).to(self.device)  # (B, 3, h, w) uint8
        with evaluation_mode(self.model), torch.inference_mode():
            outputs: list[ModelOutput] = [self.model(cut(images)) for cut in self._cuts.values()]
        logits = torch.stack([output.logits for output in outputs], dim=1).float().cpu().numpy()  # (B, V, C)
        embeddings = torch.stack([output.embedding for output in outputs], dim=1).float().cpu().numpy()  # (B, V, D)
        votes = outputs[0].votes  # the plain view comes first
        on_grid = None if votes is None else votes.per_patch().reshape(-1, *votes.grid).cpu().numpy()
        logits = extended_logits(logits, embeddings, self.bundle.additions)
        return Looked(joint_logits(logits), embeddings.mean(axis=1), on_grid)

    def predict_records(
        self,
        source: DataSource,
        split: str,
        *,
        batch_size: int = 32,
        num_workers: int = 0,
        views: str = PLAIN,
        advance: Callable[[int], None] | None = None,
    ) -> Predictions:
        """Return the predictions of a split, as `Predictor.predict_records` has them."""
        records = source.splits[split]
        loader = build_eval_loader(
            records,
            read=source.read,
            preprocessing=self.preprocessing,
            batch_size=batch_size,
            num_workers=num_workers,
            transform=None if views == PLAIN else as_resized,
        )
        cuts = None if views == PLAIN else view_cuts(self.preprocessing, views=views)
        return predict(self.model, loader, records=records, device=self.device, advance=advance, views=cuts)

    def explain(self, photographs: Iterable[Photograph], asked: Asked, **options: Any) -> Iterator[Explanation]:
        """Return an iterator over explanations, as `explain_each` has them."""
        if self.views != PLAIN:
            raise ArgumentError(
                f"what is explained is the plain view, not views={self.views!r}: load the bundle without views"
            )
        question = Question(**asked)
        return explain_each(
            photographs,
            bundle=self.bundle,
            model=self.model,
            device=self.device,
            gallery=self.gallery if question.num_neighbours > 0 else None,
            question=question,
            **options,
        )
