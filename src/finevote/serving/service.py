"""The work of a server: photographs decoded by a few threads, understood by one, told."""

import asyncio
import io
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from PIL import Image

from finevote.data.given import Photograph
from finevote.data.images import decode_image
from finevote.errors import ArgumentError, DataError
from finevote.evaluation.ranking import Looked
from finevote.explanation.explained import Explanation
from finevote.explanation.vote_map import view_in_photograph
from finevote.serving import schemas
from finevote.serving.batching import Batcher, Places
from finevote.serving.limits import ImageLimits, allowed_kinds, check_image, unreadable
from finevote.serving.metrics import Metrics
from finevote.serving.reading import Upload
from finevote.serving.refusals import Refusal
from finevote.serving.served import Served
from finevote.serving.settings import Settings
from finevote.serving.telling import check_query, not_possible, tell_evidence, tell_explanation, tell_images

if TYPE_CHECKING:  # it imports torch, and an exported file is served without
    from finevote.explaining import Asked

T = TypeVar("T")
_NAME = "the upload"  # in messages of decoders, which leave the service without it


class Service:
    """Answers requests whose bodies are read.

    Args:
        served: the model.
        settings: limits and sizes.
        metrics: where passes and refused images are counted.
    """

    def __init__(self, served: Served, *, settings: Settings, metrics: Metrics) -> None:
        self.served = served
        self.limits = ImageLimits(settings.max_image_bytes, settings.max_pixels, allowed_kinds())
        self.card = served.describe(settings, self.limits)
        self._settings = settings
        self._metrics = metrics
        self._predictor = served.predictor
        self._whole = asyncio.Semaphore(settings.decode_threads)  # photographs held in full, which may have 150 MB each
        self._pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="finevote-decode")
        self._batcher: Batcher[Any, Looked] = Batcher(
            self._look,
            batch_size=settings.batch_size,
            wait_s=settings.batch_wait_ms / 1000,
            capacity=settings.queue_images,
            tell=metrics.count_pass,
        )

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests."""
        return self._batcher.is_alive

    @property
    def num_waiting(self) -> int:
        """Images that are accepted and not yet answered."""
        return self._batcher.num_held

    def close(self) -> None:
        """Finish what was accepted, and end the threads."""
        self._batcher.close()
        self._pool.shutdown()

    async def in_pool(self, function: Callable[[], T]) -> T:
        """Return what a function gives, run by one of the few threads that decode."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def predict(self, uploads: Sequence[Upload], query: schemas.PredictQuery) -> schemas.PredictAnswer:
        """Return an answer for each image; one that cannot be read has its error instead.

        Raises:
            Refusal: no image can be read, the query cannot be answered, there is no place (429), or no time (504).
        """
        ranking = self._predictor.ranking
        wanted = check_query(ranking, query)
        found = await self._in_time(self._understand(uploads))
        good = {number: look for number, look in enumerate(found) if isinstance(look, Looked)}
        bad = {number: refusal for number, refusal in enumerate(found) if isinstance(refusal, Refusal)}
        if not good:
            raise bad[0]
        names = [uploads[number].name for number in good]
        view = view_in_photograph(self._predictor.preprocessing)
        tell = partial(
            tell_images,
            names,
            list(good.values()),
            ranking=ranking,
            wanted=wanted,
            view=view,
            gallery=self.served.gallery,
        )
        told = dict(zip(good, await self.in_pool(tell), strict=True))
        for refusal in bad.values():
            self._metrics.count_refusal(refusal.kind)
        results = [told.get(number) or _failed(upload, bad[number]) for number, upload in enumerate(uploads)]
        return schemas.PredictAnswer(model=self.served.reference, results=results)

    async def explain(self, upload: Upload, query: schemas.ExplainQuery) -> schemas.ExplainAnswer | bytes:
        """Return why an image is named as it is, or a picture of it, as PNG.

        Raises:
            Refusal: as `predict`; or the model cannot be explained (501).
        """
        self._check_explains(query)
        explanation, look = await self._in_time(self._explain(upload, query))
        if query.format == "png":
            return await self.in_pool(partial(_draw, explanation, query))
        return await self.in_pool(partial(self._tell_explanation, explanation, look))

    async def _understand(self, uploads: Sequence[Upload]) -> list[Looked | Refusal]:
        with self._batcher.places(len(uploads)) as places:
            async with asyncio.TaskGroup() as group:  # when time is over, none of them goes on
                tasks = [group.create_task(self._understand_one(upload, places)) for upload in uploads]
            return [task.result() for task in tasks]

    async def _understand_one(self, upload: Upload, places: Places[Any, Looked]) -> Looked | Refusal:
        try:
            prepared = await self.in_pool(partial(self._prepare, upload))
        except Refusal as refusal:
            places.give_up()
            return refusal
        try:
            return await asyncio.wrap_future(places.submit(prepared))
        except Refusal as refusal:
            return refusal

    async def _explain(self, upload: Upload, query: schemas.ExplainQuery) -> tuple[Explanation, Looked]:
        with self._batcher.places(1) as places:
            async with self._whole:
                read = await self.in_pool(partial(self._reader, upload))
                explain = partial(self._explain_read, upload.name, read, query)
                explained: tuple[Explanation, Looked] = await asyncio.wrap_future(places.call(explain))
            return explained

    async def _in_time(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                return await work
        except TimeoutError:
            raise Refusal(
                504,
                f"there was no answer within {self._settings.request_timeout_s:g} s",
                what_to_do="send fewer images at once, or send it again when the server has less to do",
                kind="timeout",
                headers={"retry-after": "5"},
            ) from None

    def _prepare(self, upload: Upload) -> Any:
        """Return an image as the engine takes it; Raises Refusal."""
        formats = (check_image(upload.content, self.limits).pillow,)
        try:
            return self._predictor.engine.prepare(partial(_decode, upload.content, formats))
        except DataError as error:
            raise unreadable(str(error)) from None

    def _reader(self, upload: Upload) -> Callable[[], Image.Image]:
        """Return a function that gives an image; decoded by now, where it does not matter how it is decoded."""
        formats = (check_image(upload.content, self.limits).pillow,)
        try:
            image = _decode(upload.content, formats)
        except DataError as error:
            raise unreadable(str(error)) from None
        if self._predictor.preprocessing.decoding == "exact":
            return lambda: image
        return partial(_decode, upload.content, formats)

    def _look(self, prepared: Sequence[Any]) -> list[Looked]:
        """Return what the model says of each image, one row each; runs in the thread of the model."""
        looked = self._predictor.engine.look(prepared)
        votes = [None] * len(prepared) if looked.votes is None else looked.votes
        return [Looked(*row) for row in zip(looked.logits, looked.embeddings, votes, strict=True)]

    def _explain_read(
        self, name: str, read: Callable[[], Image.Image], query: schemas.ExplainQuery
    ) -> tuple[Explanation, Looked]:
        """Return an explanation, and what evidence is found by; runs in the thread of the model."""
        asked: Asked = {
            "top": query.top,
            "coverage": query.coverage,
            "false_alarms": query.false_alarms,
            "contrast": _contrast(query.contrast, self._predictor.class_names),
        }
        engine = self._predictor.torch
        try:
            (explanation,) = engine.explain([Photograph(name, read)], asked)
        except ArgumentError as error:
            raise not_possible(error) from None
        (look,) = self._look([engine.prepare(read)])
        return explanation, look

    def _tell_explanation(self, explanation: Explanation, look: Looked) -> schemas.ExplainAnswer:
        (evidence,) = tell_evidence([look], self._predictor.class_names, self.served.gallery)
        return tell_explanation(explanation, self.served.reference, evidence)

    def _check_explains(self, query: schemas.ExplainQuery) -> None:
        voting = self.served.voting
        if voting is None:
            reason = (
                "an exported file cannot be explained: it has the final votes only"
                if self.served.is_onnx
                else "the classifier has no votes to explain it by: it is the plain backbone"
            )
            raise Refusal(
                501,
                reason,
                what_to_do="ask /v1/predict with explain=true for the final votes, or serve a run that votes",
                kind="not_possible",
            )
        if query.layer is not None and query.layer > voting.num_layers:
            raise _no_such("layer", query.layer, voting.num_layers)
        if query.head is not None and query.head > voting.num_heads:
            raise _no_such("head", query.head, voting.num_heads)
        if query.head is not None and query.layer is None:
            raise Refusal(422, f"head={query.head} of no layer", what_to_do="say which layer's: layer=1")


def _decode(content: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        return decode_image(content, name=_NAME, formats=formats)
    except DataError as error:
        raise DataError(str(error).removeprefix(f"cannot read the image {_NAME}: ")) from None


def _contrast(given: Sequence[str] | None, class_names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the classes that are held against each other: each by itself, or two in one text with a comma."""
    if given is None:
        return None
    names = [name for name in given if name]
    if len(names) == 1 and names[0] not in class_names:
        whole = names[0]
        for place, letter in enumerate(whole):
            pair = (whole[:place].strip(), whole[place + 1 :].strip())
            if letter == "," and set(pair) <= set(class_names):
                return pair
    return tuple(names)


def _draw(explanation: Explanation, query: schemas.ExplainQuery) -> bytes:
    from finevote.explanation.overlay import contrast_overlay, vote_overlay

    votes, view, photograph = explanation.votes, explanation.view, explanation.photograph
    if explanation.contrast is not None:
        picture = contrast_overlay(photograph, explanation.contrast.contributions, view=view)
    elif query.layer is None:
        picture = vote_overlay(photograph, votes.final, view=view, outlined=votes.is_selected())
    elif query.head is None:
        layer = query.layer - 1
        picture = vote_overlay(photograph, votes.ballots[layer], view=view, outlined=votes.is_selected(layer))
    else:
        picture = vote_overlay(photograph, votes.head_votes[query.layer - 1, query.head - 1] * 1.0, view=view)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _failed(upload: Upload, refusal: Refusal) -> schemas.ImageAnswer:
    said = f"{refusal.reason} (allowed: {refusal.allowed})" if refusal.allowed else refusal.reason
    return schemas.ImageAnswer(name=upload.name, error=schemas.ImageProblem(status=refusal.status, reason=said))


def _no_such(what: str, number: int, most: int) -> Refusal:
    return Refusal(422, f"{what}={number}: there are {most}", allowed=f"1 to {most}", what_to_do=f"choose a {what}")
