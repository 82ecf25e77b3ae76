"""Images of concurrent requests gathered into one forward pass, in one thread, with a bounded queue."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from finevote.serving.refusals import busy, unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

_FIRST_GUESS_S = 0.05  # an image takes, before one was timed
_LONGEST_RETRY_S = 60


class Told(NamedTuple):
    """What a forward pass came to, for the metrics."""

    num_images: int
    seconds: float


class _Job(NamedTuple):
    """An image for the next forward pass, or a function that the thread runs by itself."""

    item: Any
    function: Callable[[], Any] | None
    future: Future[Any]


class Batcher(Generic[Item, Result]):
    """Runs what needs the model, one thing at a time, and as many images at once as wait.

    An image waits for others only while some are on their way, that is accepted and still being decoded: a lone
    request is not delayed.

    Args:
        run: gives the results of up to `batch_size` items, in order.
        batch_size: items in one call at most.
        wait_s: that an item waits for others at most.
        capacity: places for items that are accepted and not yet answered.
        tell: is called after every pass.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        batch_size: int,
        wait_s: float,
        capacity: int,
        tell: Callable[[Told], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._batch_size = batch_size
        self._wait_s = wait_s
        self._capacity = capacity
        self._tell = tell
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._num_held = 0  # places taken
        self._num_coming = 0  # of these, not yet in the queue
        self._seconds_each = _FIRST_GUESS_S
        self._is_closing = self._is_over = False
        self._thread = threading.Thread(target=self._work, name="finevote-model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread still takes work."""
        return self._thread.is_alive() and not self._is_closing

    @property
    def num_held(self) -> int:
        """Images that are accepted and not yet answered."""
        return self._num_held

    @contextmanager
    def places(self, number: int) -> Iterator["Places[Item, Result]"]:
        """Take so many places, all or none, until the block ends.

        Raises:
            Refusal: the queue is full (429), or the server is stopping (503).
        """
        with self._changed:
            if self._is_closing:
                raise unavailable("the server is stopping")
            if self._num_held + number > self._capacity:
                raise busy(
                    f"{self._num_held:,} images are waiting, and {number:,} more do not fit",
                    retry_after_s=min(max(round(self._num_held * self._seconds_each), 1), _LONGEST_RETRY_S),
                )
            self._num_held += number
            self._num_coming += number
        places = Places(self, number)
        try:
            yield places
        finally:
            with self._changed:
                self._num_held -= number
                self._num_coming -= places.num_left
                self._changed.notify_all()

    def close(self) -> None:
        """Finish what waits, take nothing more, and end the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()

    def put(self, job: _Job) -> None:
        """Enter a job of one of the places; it is a matter of `Places`."""
        with self._changed:
            self._num_coming -= 1
            if self._is_over:
                job.future.set_exception(unavailable("the server is stopping"))
                return
            self._jobs.append(job)
            self._changed.notify_all()

    def drop(self) -> None:
        """Give up that an item comes; it is a matter of `Places`."""
        with self._changed:
            self._num_coming -= 1
            self._changed.notify_all()

    def _work(self) -> None:
        while jobs := self._gather():
            wanted = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if wanted and wanted[0].function is not None:
                _settle(wanted[0].future, wanted[0].function)
            elif wanted:
                self._run_batch(wanted)

    def _gather(self) -> list[_Job]:
        """Return what is to be run next: one function, or the images that wait; nothing when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closing)
            end = time.monotonic() + self._wait_s
            while self._could_be_more() and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            jobs: list[_Job] = []
            self._is_over = not self._jobs
            while self._jobs and len(jobs) < self._batch_size:
                if self._jobs[0].function is not None:
                    return jobs or [self._jobs.popleft()]
                jobs.append(self._jobs.popleft())
            return jobs

    def _could_be_more(self) -> bool:
        is_image = bool(self._jobs) and self._jobs[0].function is None
        return is_image and self._num_coming > 0 and len(self._jobs) < self._batch_size and not self._is_closing

    def _run_batch(self, jobs: Sequence[_Job]) -> None:
        start = time.monotonic()
        try:
            results = self._run([job.item for job in jobs])
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the requests' answer, and the thread goes on
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # by themselves, so that one cannot fail the others
                self._run_batch([job])
            return
        seconds = time.monotonic() - start
        self._seconds_each += 0.2 * (seconds / len(jobs) - self._seconds_each)
        self._tell(Told(len(jobs), seconds))
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)


class Places(Generic[Item, Result]):
    """Places in the queue of a `Batcher`, of one request."""

    def __init__(self, batcher: Batcher[Item, Result], number: int) -> None:
        self._batcher = batcher
        self.num_left = number

    def submit(self, item: Item) -> Future[Result]:
        """Let an item take part in a forward pass."""
        return self._put(item, None)

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Let the thread run a function by itself."""
        return self._put(None, function)

    def give_up(self) -> None:
        """Say that an item does not come, so that none waits for it."""
        self.num_left -= 1
        self._batcher.drop()

    def _put(self, item: Any, function: Callable[[], Any] | None) -> Future[Any]:
        future: Future[Any] = Future()
        self.num_left -= 1
        self._batcher.put(_Job(item, function, future))
        return future


def _settle(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except Exception as error:  # noqa: BLE001  # as above
        future.set_exception(error)
