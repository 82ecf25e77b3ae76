"""The benchmark as a whole: everything in the plan is measured in turn, and kept as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import torch
from rich.console import Console

from finevote.bench.breakdown import measure_breakdown
from finevote.bench.contenders import OURS, find_contender
from finevote.bench.cost import measure_growth, measure_memory, measure_times
from finevote.bench.loader import measure_loader
from finevote.bench.operations import measure_operations
from finevote.bench.plan import Plan, What
from finevote.bench.plot import plot_growth
from finevote.bench.precision import measure_precision
from finevote.bench.results import PLOT_NAME, TABLE_NAME, Results, Sample
from finevote.bench.startup import measure_startup
from finevote.bench.tables import in_words
from finevote.data.registry import open_source
from finevote.devices import find_accelerator
from finevote.errors import ArgumentError, RunError
from finevote.explanation.figures import save_figure
from finevote.files import exclusive
from finevote.machine import describe_machine, describe_versions, find_commit
from finevote.run_folder import next_run_path

Measure = Callable[[Plan], Iterator[list[Sample]]]


def run_bench(plan: Plan, *, out: Path | None = None) -> Path:
    """Measure what the plan asks for and return the folder of the results.

    What is known when it is interrupted is kept.

    Args:
        plan: as the command made it.
        out: the folder, whose results are replaced; None makes `runs/bench-<n>`.

    Raises:
        ArgumentError, ConfigError, DataError, UnsupportedModelError: an option is not valid; nothing has been measured.
        RunError: nothing could be measured.
        StorageError: the folder cannot be written; unless the disk filled up meanwhile, nothing has been measured.
    """
    check(plan)
    if plan.threads is not None:
        torch.set_num_threads(plan.threads)
    folder = next_run_path(Path("runs"), "bench") if out is None else out
    console = Console(highlight=False)
    about = {"machine": describe_machine(), "versions": describe_versions(), "commit": find_commit()}
    results = Results(folder, {**about, "plan": asdict(plan)})
    with exclusive(folder):
        try:
            for what in plan.whats:
                for samples in MEASURES[what](plan):
                    results.add(*samples)
                    _tell(console, samples)
        finally:
            if results.samples:
                _finish(console, results)
    if all(sample.value is None for sample in results.samples):
        reason = results.samples[0].note if results.samples else "the plan is empty"
        raise RunError(f"nothing could be measured: {reason}")
    return folder


def check(plan: Plan) -> None:
    """Raise the error of an option that cannot work, before anything is measured."""
    if plan.device == "cuda" and find_accelerator() != "cuda":
        raise ArgumentError("--device cuda: PyTorch finds no CUDA device here; use --device cpu or auto")
    for name in plan.contenders:
        find_contender(name)
    if plan.data is not None and What.LOADER in plan.whats:
        open_source(plan.data, splits=("train",))
    for case in plan.plain_cases():
        OURS.build(case)


def _finish(console: Console, results: Results) -> None:
    """Draw what there is, and say where everything is."""
    console.print(results.folder / TABLE_NAME, soft_wrap=True)
    figure = plot_growth(results.samples)
    if figure is not None:
        console.print(save_figure(figure, results.folder / PLOT_NAME), soft_wrap=True)


def _tell(console: Console, samples: list[Sample]) -> None:
    """Print what one measurement found, a contender a line."""
    first = samples[0]
    circumstances = (
        first.backbone,
        f"{first.size} px" if first.size else "",
        first.action,
        first.precision,
        first.mode,
    )
    console.print(f"{first.what}: {', '.join(filter(None, circumstances))}", style="bold")
    for sample in samples:
        about = " ".join(filter(None, (sample.contender, sample.part, sample.quantity)))
        note = f" ({sample.note})" if sample.note else ""
        console.print(f"  {about}: {in_words(sample)}{note}", markup=False, soft_wrap=True)


MEASURES: Mapping[What, Measure] = MappingProxyType(
    {
        What.OPERATIONS: measure_operations,
        What.STEP: measure_times,
        What.MEMORY: measure_memory,
        What.BREAKDOWN: measure_breakdown,
        What.PRECISION: measure_precision,
        What.GROWTH: measure_growth,
        What.LOADER: measure_loader,
        What.STARTUP: measure_startup,
    }
)
