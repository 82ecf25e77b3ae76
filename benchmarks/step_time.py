"""Time of a forward pass and of a training step: the voting classifier against the plain timm model.

Both run in turn within every round, so that a change in the machine's speed meets both alike; medians over the rounds
are compared. The result is printed, and written as JSON to benchmarks/results/.

    python benchmarks/step_time.py [--backbone vit_tiny_patch16_224] [--image-size 224] [--batch 8] [--rounds 15]
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.backbones.catalogue import SHORT_NAMES
from finevote.build import build_loss, build_model
from finevote.config import config_from_values
from finevote.files import atomic_write
from finevote.losses.classification import JointLoss

RESULTS = Path(__file__).parent / "results"
NUM_CLASSES = 200
NUM_WARMUP_ROUNDS = 2


def main() -> None:
    options = parse_options()
    torch.manual_seed(0)
    device = torch.device(options.device)
    voting, loss, plain = build(options, device)
    images = torch.randn(options.batch, 3, options.image_size, options.image_size, device=device)
    labels = torch.randint(NUM_CLASSES, (options.batch,), device=device)
    actions = {
        "voting_forward": lambda: forward(voting, images),
        "plain_forward": lambda: forward(plain, images),
        "voting_step": training_step(voting, lambda output: voting_loss(loss, output, labels), images),
        "plain_step": training_step(plain, lambda logits: F.cross_entropy(logits, labels), images),
    }
    seconds = measure(actions, num_rounds=options.rounds, device=device)
    report(options, {name: statistics.median(values) for name, values in seconds.items()}, seconds)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="voting classifier against plain timm: forward and training step")
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224, help="px")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def build(options: argparse.Namespace, device: torch.device) -> tuple[nn.Module, JointLoss, nn.Module]:
    """Return the voting classifier, its loss without the triplet, and the plain model."""
    values = {
        "model": {"backbone": options.backbone, "weights": "none"},
        "data": {"image_size": options.image_size},
        "loss": {"triplet_weight": 0.0},
    }
    config = config_from_values(values, source="the benchmark")
    voting = build_model(config, num_classes=NUM_CLASSES)
    timm_name = SHORT_NAMES.get(options.backbone, options.backbone)
    plain = timm.create_model(timm_name, img_size=options.image_size, num_classes=NUM_CLASSES)
    return voting.to(device), build_loss(config), plain.to(device)


@torch.inference_mode()
def forward(model: nn.Module, images: Tensor) -> None:
    model.eval()(images)


def training_step(model: nn.Module, loss: Callable[[Any], Tensor], images: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        loss(model.train()(images)).backward()
        optimizer.step()

    return step


def voting_loss(loss: JointLoss, output: Any, labels: Tensor) -> Tensor:
    return loss.combine(loss.classification(output, labels)) / len(labels)


def measure(actions: dict[str, Callable[[], None]], *, num_rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Return the seconds of every action in every round after the warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for number in range(NUM_WARMUP_ROUNDS + num_rounds):
        for name, action in actions.items():
            synchronise(device)
            start = time.perf_counter()
            action()
            synchronise(device)
            if number >= NUM_WARMUP_ROUNDS:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(options: argparse.Namespace, medians: dict[str, float], seconds: dict[str, list[float]]) -> None:
    ratios = {kind: medians[f"voting_{kind}"] / medians[f"plain_{kind}"] for kind in ("forward", "step")}
    for kind, ratio in ratios.items():
        voting_ms, plain_ms = (1000 * medians[f"{model}_{kind}"] for model in ("voting", "plain"))
        print(f"{kind}: voting {voting_ms:.1f} ms, plain {plain_ms:.1f} ms, ratio {ratio:.3f}")
    content = {
        "settings": vars(options),
        "machine": {"processor": platform.machine(), "num_cpus": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
        "median_s": medians,
        "ratio": ratios,
        "seconds": seconds,
    }
    path = RESULTS / f"step_time_{options.backbone}_{options.image_size}_{options.device}.json"
    atomic_write(path, json.dumps(content, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
