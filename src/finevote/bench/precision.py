"""What bf16 changes: the same weights and images under autocast and in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from finevote.bench.actions import autocast, make_batch
from finevote.bench.contenders import OURS, PLAIN, count_tokens
from finevote.bench.plan import Case, Plan, Precision, What
from finevote.bench.results import Sample
from finevote.types import ModelOutput

_NOTE = "random weights unless --set model.weights names others; images of noise"


def measure_precision(plan: Plan) -> Iterator[list[Sample]]:
    """Yield how far bf16 moves the answers of ours and of the plain model, at each backbone and size."""
    for case in plan.plain_cases():
        num_tokens = count_tokens(case)
        samples = [
            Sample(What.PRECISION, quantity, contender.name, value, unit, note=_NOTE)
            for contender in (PLAIN, OURS)
            for (quantity, unit), value in compare(contender.build(case).model.to(case.device).eval(), case).items()
        ]
        yield [sample.of(replace(case, precision=Precision.BF16), num_tokens=num_tokens) for sample in samples]


def compare(model: Any, case: Case) -> dict[tuple[str, str], float]:
    """Return quantities with their units: shares that differ, and the largest change of a logit."""
    outputs = [_run(model, case, precision=precision) for precision in (Precision.FP32, Precision.BF16)]
    exact, short = (output.logits.float() if isinstance(output, ModelOutput) else output.float() for output in outputs)
    figures = {
        ("top-1 that differ", "%"): float((exact.argmax(1) != short.argmax(1)).float().mean()),
        ("largest logit change / largest logit", "%"): float((exact - short).abs().max() / exact.abs().max()),
    }
    if isinstance(outputs[0], ModelOutput):
        exact_votes, short_votes = (output.votes for output in outputs)
        per_layer = zip(
            *(votes.selected.split(votes.budget, dim=1) for votes in (exact_votes, short_votes)), strict=True
        )
        num_other = sum(count_missing(short, exact) for exact, short in per_layer)
        figures["selected patches that differ", "%"] = num_other / exact_votes.selected.numel()
    return figures


@torch.inference_mode()
def _run(model: Any, case: Case, *, precision: Precision) -> Any:
    images, _ = make_batch(case)
    with autocast(replace(case, precision=precision)):
        return model(images)


def count_missing(numbers: Tensor, others: Tensor) -> int:
    """Return how many of (B, k) patch numbers are not among the same image's (B, m) others."""
    return int((numbers[:, :, None] != others[:, None]).all(2).sum())
