"""A contender at work in a case: the one function that is timed, or whose memory is measured."""

from collections.abc import Callable

import torch
from torch import Tensor

from finevote.bench.contenders import Contender, image_size_of
from finevote.bench.plan import Action, Case, Mode, Precision
from finevote.noise import Noise


def prepare(contender: Contender, case: Case) -> Callable[[], None]:
    """Build the contender's model and return what it does with one batch of noise, without waiting for the device.

    A step is the forward pass in training mode, the loss (ours: with complement and triplet as configured; of a plain
    model cross-entropy), the backward pass and AdamW over all parameters.
    """
    built = contender.build(case)
    model = built.model.to(case.device)
    run = torch.compile(model, dynamic=False) if case.mode is Mode.COMPILE else model
    images, labels = make_batch(case)
    if case.action is Action.FORWARD:
        model.eval()

        def forward() -> None:
            with torch.inference_mode(), autocast(case):
                run(images)

        return forward
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    inputs = (images, Noise(0, 0, case.batch)) if built.with_noise else (images,)

    def step() -> None:
        optimizer.zero_grad()
        with autocast(case):
            output = run(*inputs)
        built.objective(output, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def make_batch(case: Case) -> tuple[Tensor, Tensor]:
    """Return noise (B, 3, rows, columns) in whole patches, and labels (B,) in pairs: every anchor has a positive."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(case.batch, 3, *image_size_of(case), generator=generator)
    labels = torch.arange(case.batch) // 2 % case.num_classes
    return images.to(case.device), labels.to(case.device)


def autocast(case: Case) -> torch.autocast:
    """Return the context of the case's precision."""
    return torch.autocast(case.device, dtype=torch.bfloat16, enabled=case.precision is Precision.BF16)


def synchronise(device: str) -> None:
    """Wait until the device has done what it was asked to."""
    if device == "cuda":
        torch.cuda.synchronize()
