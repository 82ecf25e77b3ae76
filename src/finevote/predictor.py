"""A finished classifier in use: photographs in, ranked class names out. Knows bundles, not trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, Unpack

import numpy as np
from PIL import Image

from finevote.bundle.manifest import MANIFEST_NAME
from finevote.data.given import ImageLike, Photograph, name_of, open_given
from finevote.data.images import read_image
from finevote.data.listing import folder_problem, list_images
from finevote.errors import ArgumentError, BundleError, DataError
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule
from finevote.evaluation.fusion import joint_logits
from finevote.evaluation.ranking import Ask, Looked, Outputs, Ranking
from finevote.onnx_model import SUFFIX as ONNX_SUFFIX
from finevote.run_folder import RunFolder
from finevote.types import PLAIN, DataSource, Predictions, Preprocessing, Ranked, Record

if TYPE_CHECKING:
    from finevote.bundle.read import Bundle
    from finevote.explaining import Asked
    from finevote.explanation.explained import Explanation
    from finevote.model import FineGrainedClassifier
    from finevote.torch_engine import TorchEngine

_NUM_NAMED = 3  # photographs in the name of an answer for several

_T = TypeVar("_T")


class Engine(Protocol):
    """Runs a classifier, whatever the runtime."""

    preprocessing: Preprocessing

    @property
    def ranking(self) -> Ranking:
        """What turns logits into answers."""

    def prepare(self, read: Callable[[], Image.Image]) -> Any:
        """Return the RGB image that `read` gives, resized for `forward`."""

    def forward(self, prepared: Sequence[Any]) -> Outputs:
        """Return logits (B, C) and embeddings (B, D) of prepared images."""

    def look(self, prepared: Sequence[Any]) -> Looked:
        """Return the same, and the votes."""


class Predictor:
    """Names what is in photographs, with a model from a bundle or an exported file.

    Args:
        engine: what runs the classifier: a `TorchEngine` for a bundle, an `OnnxEngine` for an exported file.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.preprocessing = engine.preprocessing

    @classmethod
    def load(cls, path: Path | str, device: Any = "cpu", *, keep_rate: float | None = None, views: str = PLAIN) -> Self:
        """Load from a bundle folder, from a run folder that has one, or from an ONNX file.

        Args:
            path: the folder or file.
            device: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU where there is one; a file runs on the CPU.
            keep_rate: share of patches that each reducing layer keeps (docs/method.md, 10); None for the bundle's.
            views: of each photograph that answers are averaged over: "plain", "flip", "five-crop" or "ten-crop".

        Raises:
            ArgumentError: there is no such device, the model cannot keep patches at that rate, or no such views.
            BundleError: there is no bundle, or it is not as it was written.
            MissingExtraError: what runs an ONNX file is not installed.
        """
        path = Path(path)
        if path.suffix == ONNX_SUFFIX:
            from finevote.onnx_engine import OnnxEngine

            if views != PLAIN:
                raise ArgumentError(f"an exported file looks at the plain view only, not views={views!r}: use the run")
            return cls(OnnxEngine(path, keep_rate=keep_rate))
        from finevote.bundle.read import load_bundle
        from finevote.torch_engine import TorchEngine

        folder = find_bundle(path)
        return cls(TorchEngine(load_bundle(folder), device=device, views=views, keep_rate=keep_rate, folder=folder))

    @property
    def ranking(self) -> Ranking:
        """The classes, and what turns logits into answers."""
        return self.engine.ranking

    @property
    def class_names(self) -> tuple[str, ...]:
        """What answers can name."""
        return self.ranking.class_names

    @property
    def torch(self) -> TorchEngine:
        """The engine of a bundle.

        Raises:
            ArgumentError: it is an exported file, which can do less.
        """
        from finevote.torch_engine import TorchEngine

        if not isinstance(self.engine, TorchEngine):
            raise ArgumentError("this takes the run or its bundle, and not an exported file: load that")
        return self.engine

    @property
    def bundle(self) -> Bundle:
        """The bundle that was loaded."""
        return self.torch.bundle

    @property
    def model(self) -> FineGrainedClassifier:
        """The bundle's model, on its device."""
        return self.torch.model

    @property
    def device(self) -> Any:
        """The torch device that the model is on."""
        return self.torch.device

    def predict(
        self, image: ImageLike, *, top: int = 5, sets: SetRule | None = None, rule: AnswerRule | None = None
    ) -> Ranked:
        """Return the `top` likeliest classes of one image: a path, a PIL image, or a uint8 array (rows, columns, 3).

        With `sets` they are instead all classes of the set that holds the true one with the coverage asked for. With
        `rule` there is an answer beside them, which may be that the image is of none of the classes.

        Raises:
            ArgumentError: `top` is under 1, the array is of another form, or the bundle has no calibration for `sets`
                or `rule`.
            DataError: the image cannot be read.
        """
        return self.predict_all([image], top=top, sets=sets, rule=rule)[0]

    def predict_all(
        self,
        images: Sequence[ImageLike],
        *,
        top: int = 5,
        sets: SetRule | None = None,
        rule: AnswerRule | None = None,
        batch_size: int = 32,
    ) -> list[Ranked]:
        """Return an answer for each image, in order; Raises as `predict` does, at the first image that fails."""
        ranking = self.ranking
        ask = ranking.check(top=top, sets=sets, rule=rule)
        answers: list[Ranked] = []
        for batch in _cut(images, batch_size):
            tensors = [self.engine.prepare(partial(open_given, image)) for image in batch]
            names = [name_of(image, len(answers) + number) for number, image in enumerate(batch)]
            answers += ranking.rank(names, self.engine.forward(tensors), ask)
        return answers

    def predict_files(
        self,
        paths: Sequence[Path | str],
        *,
        top: int = 5,
        sets: SetRule | None = None,
        rule: AnswerRule | None = None,
        batch_size: int = 32,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[list[Ranked], dict[Path, str]]:
        """Return an answer for each file that can be read, and the reason for each that cannot.

        Folders are searched for images at any depth. `advance` is called with the number of files just done.

        Raises:
            ArgumentError: `top` is under 1, or the bundle has no calibration for `sets` or `rule`.
        """
        ranking = self.ranking
        ask = ranking.check(top=top, sets=sets, rule=rule)
        answers: list[Ranked] = []
        unreadable: dict[Path, str] = {}
        for names, tensors in self._read_files(paths, unreadable, batch_size=batch_size, advance=advance):
            answers += ranking.rank(names, self.engine.forward(tensors), ask)
        return answers, unreadable

    def predict_together(self, images: Sequence[ImageLike], *, top: int = 5, batch_size: int = 32) -> Ranked:
        """Return one answer for several photographs of one subject, put together as `joint_logits` does.

        Raises:
            ArgumentError: there are no images, `top` is under 1, or an array is of another form.
            DataError: an image cannot be read.
        """
        self.ranking.check(top=top)
        if not images:
            raise ArgumentError("there are no images: give one or more photographs of a subject")
        names = [name_of(image, number) for number, image in enumerate(images)]
        tensors = (
            [self.engine.prepare(partial(open_given, image)) for image in batch] for batch in _cut(images, batch_size)
        )
        return self._rank_together(names, [self.engine.forward(batch) for batch in tensors], top=top)

    def predict_files_together(
        self,
        paths: Sequence[Path | str],
        *,
        top: int = 5,
        batch_size: int = 32,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[Ranked | None, dict[Path, str]]:
        """Return one answer for all files that can be read, as being of one subject, and why the others cannot.

        The answer is None where no file can be read. Folders and `advance` are as of `predict_files`.

        Raises:
            ArgumentError: `top` is under 1.
        """
        self.ranking.check(top=top)
        found: list[str] = []
        outputs: list[Outputs] = []
        unreadable: dict[Path, str] = {}
        for names, tensors in self._read_files(paths, unreadable, batch_size=batch_size, advance=advance):
            found += names
            outputs.append(self.engine.forward(tensors))
        return self._rank_together(found, outputs, top=top) if found else None, unreadable

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
        """Return the predictions of a split, in the order of its records: of the plain view, and what others add to it.

        Raises:
            ArgumentError: there are no such views.
        """
        return self.torch.predict_records(
            source, split, batch_size=batch_size, num_workers=num_workers, views=views, advance=advance
        )

    def explain(self, image: ImageLike, **asked: Unpack[Asked]) -> Explanation:
        """Return why one image is named as it is: its votes, set and verdict, and a contrast if it is asked for.

        Raises:
            ArgumentError: the model has no votes, or what is asked for (as `Question` has it) cannot be had.
            DataError: the image cannot be read.
        """
        return self.explain_all([image], **asked)[0]

    def explain_all(self, images: Sequence[ImageLike], **asked: Unpack[Asked]) -> list[Explanation]:
        """Return an explanation of each image, in order; Raises as `explain` does, at the first that fails."""
        reads = (Photograph(name_of(image, n), partial(open_given, image)) for n, image in enumerate(images))
        return list(self.torch.explain(reads, asked))

    def explain_records(
        self,
        source: DataSource,
        records: Sequence[Record],
        *,
        advance: Callable[[int], None] | None = None,
        **asked: Unpack[Asked],
    ) -> list[Explanation]:
        """Return an explanation of each record of a data set, in order; Raises as `explain` does."""
        names = source.class_names
        reads = (Photograph(r.image_id, partial(source.read, r), names[r.label]) for r in records)
        return list(self.torch.explain(reads, asked, advance=advance))

    def explain_files(
        self,
        paths: Sequence[Path | str],
        *,
        unreadable: dict[str, str],
        advance: Callable[[int], None] | None = None,
        **asked: Unpack[Asked],
    ) -> Iterator[Explanation]:
        """Yield an explanation of each file that can be read; `unreadable` is filled with why the others cannot.

        Folders and `advance` are as of `predict_files`; Raises ArgumentError as `explain` does.
        """
        reads = (Photograph(str(path), partial(_read_file, path)) for path in list_images(paths))
        return self.torch.explain(reads, asked, unreadable=unreadable, advance=advance)

    def _read_files(
        self,
        paths: Sequence[Path | str],
        unreadable: dict[Path, str],
        *,
        batch_size: int,
        advance: Callable[[int], None] | None,
    ) -> Iterator[tuple[list[str], list[Any]]]:
        """Yield batches of the files that can be read, as names and tensors; `unreadable` is filled with the others."""

        def prepare(path: Path) -> Any:
            try:
                return self.engine.prepare(partial(_read_file, path))
            except DataError as error:
                return str(error)

        with ThreadPoolExecutor() as pool:
            for batch in _cut(list_images(paths), batch_size):
                results = dict(zip(batch, pool.map(prepare, batch), strict=True))
                unreadable |= {path: result for path, result in results.items() if isinstance(result, str)}
                tensors = {str(path): result for path, result in results.items() if not isinstance(result, str)}
                if tensors:
                    yield list(tensors), list(tensors.values())
                if advance is not None:
                    advance(len(batch))

    def _rank_together(self, names: Sequence[str], outputs: Sequence[Outputs], *, top: int) -> Ranked:
        logits, embeddings = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        joint = joint_logits(logits)[None], embeddings.mean(axis=0)[None]  # (1, C) and (1, D)
        (ranked,) = self.ranking.rank([_describe_all(names)], joint, Ask(top))
        return replace(ranked, photographs=tuple(names))


def find_bundle(path: Path) -> Path:
    """Return the bundle folder that `path` is, or that the run at `path` has.

    Raises:
        BundleError: there is none.
    """
    if (path / MANIFEST_NAME).is_file():
        return path
    run = RunFolder(path)
    if run.bundle.is_dir():
        return run.bundle
    if run.config_yaml.is_file():
        raise BundleError(f"the run {path} has no bundle yet: finish it with `finevote fit --resume {path}`")
    problem = "holds neither a bundle nor a run" if path.exists() else "is not there"
    raise BundleError(f"{path} {problem}: give a bundle folder, or a run folder that `finevote fit` has finished")


def _read_file(path: Path) -> Image.Image:
    """Return the photograph at a path; the error says why not, without the path."""
    try:
        return read_image(path)
    except DataError as error:
        reason = folder_problem(path) or str(error)
        raise DataError(reason.removeprefix(f"cannot read the image {path}: ")) from error


def _describe_all(names: Sequence[str]) -> str:
    """Return how many photographs there are, and the first of their names, without folders."""
    rest = ["..."] if len(names) > _NUM_NAMED else []
    shown = ", ".join([*(Path(name).name for name in names[:_NUM_NAMED]), *rest])
    return f"{len(names):,} photograph{'s' if len(names) > 1 else ''}: {shown}"


def _cut(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
