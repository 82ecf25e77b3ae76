"""What an optimiser step costs when its batch is cut into micro-batches, once through or, for the triplet, twice.

    python -m benchmarks.accumulation

A batch of n chunks takes n forward and n backward passes under cross-entropy alone, and 2n - 1 forward and n backward
passes with a batch-hard triplet over the whole batch (`finevote.training.step`). Peak memory is each in a process of
its own.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.fabric import Fabric

from finevote.bench.actions import make_batch
from finevote.bench.contenders import OURS, config_of
from finevote.bench.failure import status_bytes
from finevote.bench.memory import in_fresh_process
from finevote.bench.plan import Action, Case
from finevote.bench.timing import ratio_of, spread_of, time_in_turn
from finevote.build import build_loss
from finevote.files import atomic_write
from finevote.machine import describe_machine, describe_versions, find_commit
from finevote.training.step import accumulate
from finevote.types import Batch

WEIGHTS = {"cross-entropy": 0.0, "with triplet": 1.0}


class Way(NamedTuple):
    """How a step is made."""

    objective: str
    micro_batch: int | None

    def __str__(self) -> str:
        return f"{self.objective}, {'whole' if self.micro_batch is None else f'{self.micro_batch} at once'}"


def prepare(way: Way, case: Case) -> Callable[[], object]:
    """Return one optimiser step on a batch of noise."""
    fabric = Fabric(accelerator="cpu", devices=1)
    model = OURS.build(case).model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    model, optimizer = fabric.setup(model, optimizer)
    images, labels = make_batch(case)
    loss = build_loss(config_of(case))

    def step() -> None:
        optimizer.zero_grad()
        accumulate(
            fabric,
            model,
            Batch(images, labels, torch.arange(len(labels))),
            loss,
            triplet_weight=WEIGHTS[way.objective],
            micro_batch=way.micro_batch,
            noise_seed=0,
        )
        optimizer.step()

    return step


def measure_peak(way: Way, case: Case) -> int:
    """Return the bytes that two steps took at most above what the process held before; on Linux only."""
    before = status_bytes("VmRSS") or 0
    step = prepare(way, case)
    step()
    step()
    return (status_bytes("VmHWM") or 0) - before


def as_markdown(content: dict, case: Case) -> str:
    """Return the machine and a table with a line for each way."""
    machine = content["machine"]
    lines = [
        "# Micro-batches",
        "",
        (
            f"`{content['command']}`: {case.backbone}, {case.size} px, {case.batch} images, {machine['cpu']}, "
            f"{machine['num_threads']} threads; commit {content['commit']}."
        ),
        "Ratios are to the whole batch with the same objective, round by round: medians with quartiles.",
        "",
        "| step | seconds | ratio | peak memory | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in content["rows"]:
        ratio = "{:.2f} ({:.2f} to {:.2f})".format(*row["ratio"])
        peak = row["peak_bytes"] / 2**20
        lines.append(
            f"| {row['way']} | {row['seconds'][0]:.2f} | {ratio} | {peak:,.0f} MiB | {row['peak_ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="dinov2_vits14")
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu_accumulation"))
    given = parser.parse_args()
    case = Case(given.backbone, given.size, given.batch, 200, action=Action.STEP)
    ways = [Way(objective, size) for objective in WEIGHTS for size in (None, given.micro_batch)]
    peaks = {way: in_fresh_process(measure_peak, way, case) for way in ways}
    timed = time_in_turn({str(way): prepare(way, case) for way in ways}, num_rounds=given.rounds)
    rows = []
    for way in ways:
        whole, mine = Way(way.objective, None), timed.seconds[str(way)]
        rows.append(
            {
                "way": str(way),
                "seconds": spread_of(mine),
                "ratio": ratio_of(mine, timed.seconds[str(whole)]),
                "raw": mine,
                "peak_bytes": peaks[way],
                "peak_ratio": peaks[way] / peaks[whole],
            }
        )
    content = {
        "command": f"python -m benchmarks.accumulation --backbone {case.backbone} --size {case.size} "
        f"--batch {case.batch} --micro-batch {given.micro_batch} --rounds {given.rounds}",
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": find_commit(),
        "rows": rows,
    }
    atomic_write(given.out / "accumulation.json", json.dumps(content, indent=1) + "\n")
    atomic_write(given.out / "accumulation.md", as_markdown(content, case))
    print(as_markdown(content, case))


if __name__ == "__main__":
    main()
