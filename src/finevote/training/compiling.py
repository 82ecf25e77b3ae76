"""torch.compile in training: one graph, however the budget moves and whatever the noise."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from finevote.errors import ArgumentError

_CHANGING = r".*\b(counts|seed|start)\b.*"  # of `TokenBudget` and `Noise`: whole numbers that differ from step to step


@contextmanager
def compiled(model: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Run the model compiled, in place, within this context; leave it as it is unless `wanted`.

    The budget's counts and the seeds of the noise are variables of the graph, so they never have it compiled again.
    What does is counted on one hand: no gradient instead of one, evaluation, a frozen backbone, a smaller last batch.

    Raises:
        ArgumentError: this machine has nothing to compile with.
    """
    if not wanted:
        yield
        return
    from torch._dynamo.exc import BackendCompilerFailed
    from torch._inductor.exc import InductorError

    model.compile()
    settings: Any = torch.compiler.config
    try:
        with settings.patch(dynamic_sources=_CHANGING):
            yield
    except (BackendCompilerFailed, InductorError) as error:
        reason = " ".join(str(error).split("\n\n")[0].split())
        raise ArgumentError(
            f"training.compile=true: the model could not be compiled ({reason}); it takes a C++ compiler on a CPU and "
            "Triton on a GPU: install it, or set training.compile=false"
        ) from error
    finally:
        model._compiled_call_impl = None  # noqa: SLF001  # as `Module.compile` sets it; it has no undoing
