"""A finished classifier in use: photographs in, ranked class names out. Knows bundles, not trainings."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from finevote.build import build_eval_loader
from finevote.bundle.manifest import MANIFEST_NAME
from finevote.bundle.read import Bundle, load_bundle
from finevote.data.given import ImageLike, name_of, open_given
from finevote.data.images import read_image
from finevote.data.listing import folder_problem, list_images
from finevote.data.transforms import read_resized
from finevote.data.views import PLAIN, as_resized, view_cuts
from finevote.devices import find_device
from finevote.errors import ArgumentError, BundleError, DataError
from finevote.evaluation.answers import AnswerRule, Thresholds, find_answers, find_thresholds
from finevote.evaluation.calibrator import SetRule, told_probabilities
from finevote.evaluation.fusion import joint_logits
from finevote.evaluation.metrics import Logits, rank_classes
from finevote.evaluation.predict import evaluation_mode, predict
from finevote.explaining import Asked, Question, check_calibration, explain_each
from finevote.explanation.explained import Explanation
from finevote.run_folder import RunFolder
from finevote.types import Answer, DataSource, ModelOutput, Predictions, Ranked, Record

_NUM_NAMED = 3  # photographs in the name of an answer for several
_Outputs = tuple[Logits, NDArray[np.floating[Any]]]  # logits (B, C) and embeddings (B, D)

_T = TypeVar("_T")


class _Ask(NamedTuple):
    """What is wanted of each image."""

    top: int
    sets: SetRule | None = None
    thresholds: Thresholds | None = None


class Predictor:
    """Names what is in photographs, with a model from a bundle.

    Args:
        bundle: as `load_bundle` gives it.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU where there is one.
        views: of each photograph that answers are averaged over: "plain", "flip", "five-crop" or "ten-crop".

    Raises:
        ArgumentError: there is no such device, or there are no such views.
    """

    def __init__(self, bundle: Bundle, *, device: torch.device | str = "cpu", views: str = PLAIN) -> None:
        self.bundle = bundle
        self.class_names = bundle.class_names
        self.preprocessing = bundle.preprocessing
        self.device = find_device(device)
        self.model = bundle.model.to(self.device).eval()
        self.views = views
        self._cuts = view_cuts(bundle.preprocessing, views=views)

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: torch.device | str = "cpu",
        *,
        keep_rate: float | None = None,
        views: str = PLAIN,
    ) -> Self:
        """Load from a bundle folder, or from a run folder that has one.

        `keep_rate` is the share of patches that each reducing layer keeps (docs/method.md, 10); None for the bundle's.

        Raises:
            ArgumentError: there is no such device, the model cannot keep patches at that rate, or no such views.
            BundleError: there is no bundle, or it is not as it was written.
        """
        predictor = cls(load_bundle(find_bundle(Path(path))), device=device, views=views)
        if keep_rate is not None:
            predictor.model.set_keep_rate(keep_rate)
        return predictor

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
        ask = self._check(top, sets, rule)
        answers: list[Ranked] = []
        for batch in _cut(images, batch_size):
            tensors = [self._prepare(partial(open_given, image)) for image in batch]
            names = [name_of(image, len(answers) + number) for number, image in enumerate(batch)]
            answers += self._rank(names, self._forward(tensors), ask)
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
        ask = self._check(top, sets, rule)
        answers: list[Ranked] = []
        unreadable: dict[Path, str] = {}
        for names, tensors in self._read_files(paths, unreadable, batch_size=batch_size, advance=advance):
            answers += self._rank(names, self._forward(tensors), ask)
        return answers, unreadable

    def predict_together(self, images: Sequence[ImageLike], *, top: int = 5, batch_size: int = 32) -> Ranked:
        """Return one answer for several photographs of one subject, put together as `joint_logits` does.

        Raises:
            ArgumentError: there are no images, `top` is under 1, or an array is of another form.
            DataError: an image cannot be read.
        """
        _check_top(top)
        if not images:
            raise ArgumentError("there are no images: give one or more photographs of a subject")
        names = [name_of(image, number) for number, image in enumerate(images)]
        tensors = ([self._prepare(partial(open_given, image)) for image in batch] for batch in _cut(images, batch_size))
        return self._rank_together(names, [self._forward(batch) for batch in tensors], top=top)

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
        _check_top(top)
        found: list[str] = []
        outputs: list[_Outputs] = []
        unreadable: dict[Path, str] = {}
        for names, tensors in self._read_files(paths, unreadable, batch_size=batch_size, advance=advance):
            found += names
            outputs.append(self._forward(tensors))
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

    def explain(self, image: ImageLike, **asked: Unpack[Asked]) -> Explanation:
        """Return why one image is named as it is: its votes, set and verdict, and a contrast if it is asked for.

        Raises:
            ArgumentError: the model has no votes, or what is asked for (as `Question` has it) cannot be had.
            DataError: the image cannot be read.
        """
        return self.explain_all([image], **asked)[0]

    def explain_all(self, images: Sequence[ImageLike], **asked: Unpack[Asked]) -> list[Explanation]:
        """Return an explanation of each image, in order; Raises as `explain` does, at the first that fails."""
        reads = ((name_of(image, number), partial(open_given, image)) for number, image in enumerate(images))
        return list(self._explain(reads, asked))

    def explain_records(
        self,
        source: DataSource,
        records: Sequence[Record],
        *,
        advance: Callable[[int], None] | None = None,
        **asked: Unpack[Asked],
    ) -> list[Explanation]:
        """Return an explanation of each record of a data set, in order; Raises as `explain` does."""
        reads = ((record.image_id, partial(source.read, record)) for record in records)
        return list(self._explain(reads, asked, advance=advance))

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
        reads = ((str(path), partial(_read_file, path)) for path in list_images(paths))
        return self._explain(reads, asked, unreadable=unreadable, advance=advance)

    def _explain(
        self, reads: Iterable[tuple[str, Callable[[], Image.Image]]], asked: Asked, **options: Any
    ) -> Iterator[Explanation]:
        if self.views != PLAIN:
            raise ArgumentError(
                f"what is explained is the plain view, not views={self.views!r}: load the bundle without views"
            )
        return explain_each(
            reads, bundle=self.bundle, model=self.model, device=self.device, question=Question(**asked), **options
        )

    def _read_files(
        self,
        paths: Sequence[Path | str],
        unreadable: dict[Path, str],
        *,
        batch_size: int,
        advance: Callable[[int], None] | None,
    ) -> Iterator[tuple[list[str], list[Tensor]]]:
        """Yield batches of the files that can be read, as names and tensors; `unreadable` is filled with the others."""

        def prepare(path: Path) -> Tensor | str:
            try:
                return self._prepare(partial(_read_file, path))
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

    def _prepare(self, read: Callable[[], Image.Image]) -> Tensor:
        """Return the RGB image that `read` gives, resized, (3, h, w) uint8."""
        return read_resized(read, self.preprocessing)

    def _forward(self, tensors: Sequence[Tensor]) -> _Outputs:
        """Return logits (B, C) and embeddings (B, D), averaged over the views."""
        images = torch.stack(list(tensors)).to(self.device)  # (B, 3, h, w) uint8
        with evaluation_mode(self.model), torch.inference_mode():
            outputs: list[ModelOutput] = [self.model(cut(images)) for cut in self._cuts.values()]
        logits = torch.stack([output.logits for output in outputs], dim=1).float().cpu().numpy()  # (B, V, C)
        embeddings = torch.stack([output.embedding for output in outputs], dim=1).float().cpu().numpy()  # (B, V, D)
        return joint_logits(logits), embeddings.mean(axis=1)

    def _check(self, top: int, sets: SetRule | None, rule: AnswerRule | None) -> _Ask:
        """Return what is asked for, with the thresholds of the rule."""
        _check_top(top)
        if sets is None and rule is None:
            return _Ask(top)
        if self.views != PLAIN:
            raise ArgumentError(
                f"what is promised was calibrated on the plain view, and does not hold for views={self.views!r}: "
                "leave out either (--views)"
            )
        calibration = check_calibration(self.bundle.calibration, keep_rate=self.model.keep_rate)
        if sets is not None:  # raises for a bad rule
            calibration.sets(np.ones((1, len(self.class_names))) / len(self.class_names), sets)
        return _Ask(top, sets, None if rule is None else find_thresholds(calibration, rule, self.bundle.taxonomy))

    def _rank(self, image_ids: Sequence[str], outputs: _Outputs, ask: _Ask) -> list[Ranked]:
        logits, embeddings = outputs
        calibration = self.bundle.calibration
        probabilities = told_probabilities(logits, calibration)
        ranks = rank_classes(logits)
        is_told = np.broadcast_to(np.arange(ranks.shape[1]) < ask.top, ranks.shape)
        if calibration is not None and ask.sets is not None:
            is_told = np.take_along_axis(calibration.sets(probabilities, ask.sets), ranks, axis=1)
        answers: Sequence[Answer | None] = [None] * len(logits)
        if calibration is not None and ask.thresholds is not None:
            answers = find_answers(
                logits,
                embeddings,
                calibration=calibration,
                thresholds=ask.thresholds,
                class_names=self.class_names,
                taxonomy=self.bundle.taxonomy,
            )
        order = [row[told] for row, told in zip(ranks, is_told, strict=True)]
        return [
            Ranked(
                image_id=image_id,
                class_names=tuple(self.class_names[label] for label in labels),
                probabilities=tuple(float(row[label]) for label in labels),
                answer=answer,
            )
            for image_id, row, labels, answer in zip(image_ids, probabilities, order, answers, strict=True)
        ]

    def _rank_together(self, names: Sequence[str], outputs: Sequence[_Outputs], *, top: int) -> Ranked:
        logits, embeddings = (np.concatenate(parts) for parts in zip(*outputs, strict=True))
        joint = joint_logits(logits)[None], embeddings.mean(axis=0)[None]  # (1, C) and (1, D)
        (ranked,) = self._rank([_describe_all(names)], joint, _Ask(top))
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


def _check_top(top: int) -> None:
    if top < 1:
        raise ArgumentError(f"top={top} must be 1 or more: how many classes to name")
