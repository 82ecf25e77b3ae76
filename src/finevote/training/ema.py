"""A running average of the weights, evaluated in their place."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

ModelT = TypeVar("ModelT", bound=nn.Module)


class WeightAverage(Generic[ModelT]):
    """`model` is a copy whose parameters follow those of the trained model; its buffers are the newest ones.

    After the n-th update (n from 1) the average keeps min(decay, (1 + n) / (10 + n)) of itself, so that the first
    steps, whose weights are still far off, are soon forgotten.
    """

    def __init__(self, model: ModelT, *, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the weights of `model`."""
        self.num_updates += 1
        keep = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(weight, 1 - keep)
        # Not copied one by one: modules derive other state from their buffers when they are loaded.
        self.model.load_state_dict(_buffers(model), strict=False)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that `load_state_dict` needs to go on."""
        return {"model": self.model.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved average."""
        self.model.load_state_dict(state["model"])
        self.num_updates = state["num_updates"]


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in model.state_dict().items() if name not in parameters}
