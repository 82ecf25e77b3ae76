"""Time and peak memory of every contender, case by case, with their ratios to the plain model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from finevote.bench.actions import prepare, synchronise
from finevote.bench.contenders import PLAIN, count_tokens, find_contender, names_of_all
from finevote.bench.failure import bounded_memory, describe_failure
from finevote.bench.memory import Peak, measure_peak
from finevote.bench.plan import Case, Mode, Plan, What
from finevote.bench.results import Sample
from finevote.bench.timing import Timed, ratio_of, spread_of, time_in_turn

_MIB = 2**20


def measure_times(plan: Plan) -> Iterator[list[Sample]]:
    """Yield the times of each case."""
    for case in plan.cases():
        yield times_of(case, plan, what=What.STEP)


def measure_memory(plan: Plan) -> Iterator[list[Sample]]:
    """Yield the peaks of each case."""
    for case in plan.cases():
        yield peaks_of(case, plan, what=What.MEMORY)


def measure_growth(plan: Plan) -> Iterator[list[Sample]]:
    """Yield times and peaks of one image, from small to large images and from few to many classes."""
    for case in plan.growth_cases():
        yield times_of(case, plan, what=What.GROWTH)
        yield peaks_of(case, plan, what=What.GROWTH)


def times_of(case: Case, plan: Plan, *, what: What) -> list[Sample]:
    """Return every contender's time in a case, and its ratio to the plain model's in the same rounds."""
    num_tokens = count_tokens(case)
    seconds, failures = _time(case, plan)
    samples = []
    for name, values in seconds.items():
        spread = spread_of(values)
        samples.append(Sample(what, "time", name, unit="s", raw=tuple(values), **spread._asdict()))
        if name != PLAIN.name and PLAIN.name in seconds:
            ratio = ratio_of(values, seconds[PLAIN.name])
            raw = tuple(mine / plain for mine, plain in zip(values, seconds[PLAIN.name], strict=True))
            samples.append(Sample(what, "time ratio", name, unit="", raw=raw, **ratio._asdict()))
    samples += [Sample(what, "time", name, None, "s", note=note) for name, note in failures.items()]
    return [sample.of(case, num_tokens=num_tokens) for sample in samples]


def _time(case: Case, plan: Plan) -> Timed:
    actions: dict[str, Callable[[], None]] = {}
    failures: dict[str, str] = {}
    if case.mode is Mode.COMPILE:
        torch.compiler.reset()  # of other cases, whose shapes would count against the limit of recompilations
    with bounded_memory(case.device):
        for name in names_of_all(plan.contenders):
            contender = find_contender(name)
            try:
                actions[contender.name] = prepare(contender, case)
            except Exception as error:  # noqa: BLE001  (reported, and the others go on)
                failures[contender.name] = describe_failure(error)
        timed = time_in_turn(actions, num_rounds=plan.rounds, synchronise=lambda: synchronise(case.device))
    return Timed(timed.seconds, failures | timed.failures)


def peaks_of(case: Case, plan: Plan, *, what: What) -> list[Sample]:
    """Return every contender's peak memory in a case, each in a fresh process, and its ratio to the plain model's."""
    peaks = {
        find_contender(name).name: measure_peak(name, case, threads=plan.threads)
        for name in names_of_all(plan.contenders)
    }
    num_tokens = count_tokens(case)
    samples = [
        sample for name, peak in peaks.items() for sample in _peak_samples(name, peak, peaks[PLAIN.name], what=what)
    ]
    return [sample.of(case, num_tokens=num_tokens) for sample in samples]


def _peak_samples(name: str, peak: Peak, plain: Peak, *, what: What) -> Iterator[Sample]:
    value = None if peak.num_bytes is None else peak.num_bytes / _MIB
    yield Sample(what, "peak memory", name, value, "MiB", note=peak.note)
    if name != PLAIN.name and peak.num_bytes is not None and plain.num_bytes:
        yield Sample(what, "peak memory ratio", name, peak.num_bytes / plain.num_bytes, "")
