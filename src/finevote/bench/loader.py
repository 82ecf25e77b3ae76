"""How many images a second the training loader gives, by stage, and how many a training step takes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from finevote.bench.contenders import OURS, config_of
from finevote.bench.cost import times_of
from finevote.bench.plan import Action, Case, Plan, What
from finevote.bench.results import Sample
from finevote.bench.timing import spread_of, time_in_turn
from finevote.build import build_preprocessing, build_train_loader
from finevote.config import Config, config_from_values
from finevote.data.dataset import Draw
from finevote.data.registry import open_source
from finevote.data.synthetic import synthetic_source
from finevote.types import DataSource

RATE = "images a second"
_DRAWN_PX, _DRAWN_PER_CLASS, _JPEG_QUALITY = 500, 4, 90
_NUM_STAGE_IMAGES = 16  # of a round


def measure_loader(plan: Plan) -> Iterator[list[Sample]]:
    """Yield the loader's rates for each size, beside what a step of ours with the first backbone takes."""
    with opened(plan.data) as source:
        for case in plan.plain_cases():
            if case.backbone == plan.backbones[0]:
                step = replace(case, action=Action.STEP)
                yield [sample.of(step) for sample in _rates(step, source, plan)]


@contextmanager
def opened(data: str | None) -> Iterator[DataSource]:
    """Give the data set inside the block; None: drawn birds, as JPEGs of 500 px in a folder for the time being."""
    if data is not None:
        yield open_source(data, splits=("train",))
        return
    with tempfile.TemporaryDirectory() as folder:
        images_per_class = {"train": _DRAWN_PER_CLASS}
        drawn = synthetic_source(splits=("train",), image_size=_DRAWN_PX, images_per_class=images_per_class)
        for number, record in enumerate(drawn.splits["train"]):
            path = Path(folder) / "train" / drawn.class_names[record.label] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn.read(record).save(path, quality=_JPEG_QUALITY)
        yield open_source(folder, splits=("train",))


def _rates(case: Case, source: DataSource, plan: Plan) -> Iterator[Sample]:
    step = times_of(case, replace(plan, contenders=()), what=What.LOADER)
    (seconds,) = [sample.value for sample in step if sample.contender == OURS.name and sample.quantity == "time"]
    loader = _build_loader(case, source, plan, num_workers=plan.workers)
    whole = _throughput(loader, num_batches=max(plan.rounds, 4))
    workers = f"{plan.workers} loader processes"
    yield Sample(What.LOADER, RATE, "loader", whole, "images/s", part="whole", note=f"{workers}, nothing cached")
    yield from _stage_rates(case, source, plan)
    if seconds is not None:
        wanted = case.batch / seconds
        yield Sample(
            What.LOADER, RATE, "step", wanted, "images/s", part="whole", note=f"batch {case.batch}, fp32, eager"
        )
        yield Sample(What.LOADER, "loader / step", "loader", whole / wanted, "", part="whole")


def _stage_rates(case: Case, source: DataSource, plan: Plan) -> Iterator[Sample]:
    """Yield the rates of the stages in this process, on one thread as in a loader process."""
    dataset: Any = _build_loader(case, source, plan, num_workers=0).dataset
    pixels = torch.randint(256, (3, *dataset.preprocessing.resize), dtype=torch.uint8)
    numbers = list(islice(cycle(range(len(dataset))), _NUM_STAGE_IMAGES))
    stages = {
        "decode": lambda: [source.read(dataset.records[number]) for number in numbers],
        "augment": lambda: [dataset.transform(pixels) for _ in numbers],
        "decode, resize and augment": lambda: [dataset[Draw(0, number)] for number in numbers],
    }
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timed = time_in_turn(stages, num_rounds=plan.rounds)
    finally:
        torch.set_num_threads(num_threads)
    for stage, seconds in timed.seconds.items():
        rates = [len(numbers) / value for value in seconds]
        spread = spread_of(rates)._asdict()
        yield Sample(What.LOADER, RATE, "loader", unit="images/s", part=stage, raw=tuple(rates), **spread)
    for stage, note in timed.failures.items():
        yield Sample(What.LOADER, RATE, "loader", None, "images/s", part=stage, note=note)


def _build_loader(case: Case, source: DataSource, plan: Plan, *, num_workers: int) -> Any:
    """Return a training loader over the images, repeated until they fill every batch that is asked for."""
    config = _with_workers(config_of(case), num_workers)
    needed = config.training.batch_size * (2 * num_workers + 3 + max(plan.rounds, 4))
    records = tuple(islice(cycle(source.splits["train"]), max(needed, len(source.splits["train"]))))
    repeated = replace(source, splits={"train": records})
    model: Any = OURS.build(case).model
    return build_train_loader(config, repeated, build_preprocessing(config.data, model.backbone))


def _with_workers(config: Config, num_workers: int) -> Config:
    values = config.model_dump()
    values["data"] |= {"num_workers": num_workers, "cache": "none"}
    return config_from_values(values, source="the benchmark")


def _throughput(loader: Any, *, num_batches: int) -> float:
    """Return images a second once what the processes had prepared at the start is used up."""
    batches = iter(loader)
    for _ in range(2 * loader.num_workers + 1):
        next(batches)
    start = time.perf_counter()
    num_images = sum(len(batch.labels) for batch in islice(batches, num_batches))
    return num_images / (time.perf_counter() - start)
