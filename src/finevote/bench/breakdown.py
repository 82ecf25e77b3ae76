"""Where the time of our forward pass goes, by a stopwatch at the doors of its parts."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from finevote.backbones import layer as backbone_layer
from finevote.bench.actions import autocast, make_batch, synchronise
from finevote.bench.contenders import OURS, count_tokens
from finevote.bench.plan import Case, Plan, What
from finevote.bench.results import Sample
from finevote.bench.timing import spread_of
from finevote.voting import head as voting_head
from finevote.voting import refinement

BEYOND = "beyond the blocks"
TRUNK = ("embedding", "blocks")
_REST = "rest"


class Stopwatch:
    """Seconds by part; a part that calls another one stands still meanwhile.

    Args:
        synchronise: waits for the device at every door.
    """

    def __init__(self, synchronise: Callable[[], None]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._synchronise = synchronise
        self._running: list[str] = []
        self._since = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block for a part."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function, counted for a part."""

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return timed

    def _charge(self) -> None:
        self._synchronise()
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


def measure_breakdown(plan: Plan) -> Iterator[list[Sample]]:
    """Yield the seconds of every part of our forward pass and its share, and those of all that the trunk is not."""
    for case in plan.plain_cases(plan.precisions):
        rounds = take_apart(case, num_rounds=plan.rounds)
        num_tokens = count_tokens(case)
        parts = [*(part for part in rounds[0] if part != _REST), _REST]
        samples = [sample for part in parts for sample in _samples(part, [seconds[part] for seconds in rounds], rounds)]
        beyond = [sum(value for part, value in seconds.items() if part not in TRUNK) for seconds in rounds]
        samples += _samples(BEYOND, beyond, rounds)
        yield [sample.of(case, num_tokens=num_tokens) for sample in samples]


def take_apart(case: Case, *, num_rounds: int) -> list[dict[str, float]]:
    """Return the seconds of each part in every round after one to warm up."""
    model: Any = OURS.build(case).model.to(case.device).eval()
    images, _ = make_batch(case)
    rounds = []
    for number in range(1 + num_rounds):
        watch = Stopwatch(lambda: synchronise(case.device))
        with doors(model, watch), torch.inference_mode(), autocast(case), watch.part(_REST):
            model(images)
        if number > 0:
            rounds.append(watch.seconds)
    return rounds


@contextmanager
def doors(model: Any, watch: Stopwatch) -> Iterator[None]:
    """Have every part of a voting classifier counted inside the block."""
    with ExitStack() as stack:
        for owner, name, part in _doors_of(model):
            original, is_own = getattr(owner, name), name in vars(owner)
            setattr(owner, name, watch.wrap(original, part))
            stack.callback(*((setattr, owner, name, original) if is_own else (delattr, owner, name)))
        yield


def _doors_of(model: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield owner, name of the function in it, and the part that its time belongs to."""
    yield model.backbone.embedding, "forward", "embedding"
    for layer in model.backbone.layers:
        yield layer, "read", "blocks"
        yield layer, "write", "blocks"
    yield backbone_layer, "cls_attention_rows", "rows"
    yield voting_head, "cast_votes", "ballots"
    yield voting_head, "count_votes", "ballots"
    yield refinement, "count_ballots", "ballots"
    head = model.head
    if head.smoothing is not None:
        yield head.smoothing, "forward", "smoothing"
    for owner in (voting_head, refinement):
        yield owner, "rank_patches", "selection"
    yield head, "forward_layer", "selection"
    yield head, "reduce", "selection"
    for stage, part in ((head.refine, "refinement"), (head.key, "key")):
        if stage is not None:
            yield stage, "read", part
            yield stage, "write", part
    yield head.classifier, "forward", "logits"
    yield head, "_classify_parts", "logits"


def _samples(part: str, seconds: list[float], rounds: list[dict[str, float]]) -> Iterator[Sample]:
    shares = [value / sum(whole.values()) for value, whole in zip(seconds, rounds, strict=True)]
    for quantity, unit, values in (("time", "s", seconds), ("time share", "%", shares)):
        spread = spread_of(values)._asdict()
        yield Sample(What.BREAKDOWN, quantity, OURS.name, unit=unit, part=part, raw=tuple(values), **spread)
