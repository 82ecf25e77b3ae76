"""Groups of parameters with their own peak rates, the optimiser over them, and the rate at each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from rich.table import Table
from torch import nn, optim

TOKEN_NAMES = frozenset({"cls_token", "dist_token", "mask_token", "pos_embed", "reg_token", "register_tokens"})
ROTATION_NAMES = frozenset({"frequencies"})


class LayeredModel(Protocol):
    """A model that knows how deep each of its parameters lies."""

    @property
    def num_blocks(self) -> int:
        """Pretrained blocks."""

    def depth_of(self, parameter_name: str) -> int | None:
        """0 for the embedding and the tokens, i + 1 for block i, None for new parts."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every parameter with its name."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a peak learning rate and a weight decay; `name` says which."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    peak_lr: float
    weight_decay: float

    @property
    def num_parameters(self) -> int:
        """Numbers in all the tensors together."""
        return sum(parameter.numel() for parameter in self.parameters)

    def describe(self) -> dict[str, Any]:
        """Return what `lr_groups.json` says of this group."""
        return {
            "name": self.name,
            "num_parameters": self.num_parameters,
            "peak_lr": self.peak_lr,
            "weight_decay": self.weight_decay,
        }


def group_parameters(
    model: LayeredModel, *, lr: float, new_lr: float | None, layer_decay: float, weight_decay: float
) -> list[ParameterGroup]:
    """Group the trainable parameters by depth and by whether they decay, from the input to the new parts.

    The last pretrained block has the rate `lr`, each block before it `layer_decay` times that of its successor, the
    embedding `layer_decay` times that of the first block; new parts have `new_lr`, or `lr` where it is None. Biases,
    norms, LayerScale, tokens and rotations do not decay. Frozen parameters are in no group.
    """
    members: dict[tuple[int | None, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            members.setdefault((model.depth_of(name), decays(name, parameter)), []).append(parameter)

    def peak(depth: int | None) -> float:
        if depth is None:
            return lr if new_lr is None else new_lr
        return lr * layer_decay ** (model.num_blocks - depth)

    def order(key: tuple[int | None, bool]) -> tuple[float, bool]:
        return (math.inf if key[0] is None else key[0], key[1])

    return [
        ParameterGroup(
            name=_group_name(depth, decayed=decayed),
            parameters=tuple(members[depth, decayed]),
            peak_lr=peak(depth),
            weight_decay=weight_decay if decayed else 0.0,
        )
        for depth, decayed in sorted(members, key=order)
    ]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Say whether weight decay may shrink it: a matrix or kernel, but no bias, norm, scale, token or rotation."""
    last = name.rpartition(".")[2]
    return parameter.ndim > 1 and last != "bias" and last not in TOKEN_NAMES | ROTATION_NAMES


def build_optimizer(
    groups: Sequence[ParameterGroup],
    *,
    name: Literal["adamw", "sgd"],
    momentum: float,
    betas: tuple[float, float],
) -> optim.Optimizer:
    """Return AdamW (with `betas`) or SGD (with `momentum`, Nesterov) over the groups, at their peak rates."""
    members = [
        {"params": list(group.parameters), "lr": group.peak_lr, "weight_decay": group.weight_decay} for group in groups
    ]
    if name == "sgd":
        return optim.SGD(members, momentum=momentum, nesterov=momentum > 0)
    return optim.AdamW(members, betas=betas)


def schedule_factor(step: int, *, num_steps: int, num_warmup_steps: int, final_factor: float) -> float:
    """Return the share of the peak rate at `step` (0-based).

    It rises linearly over the warm-up, whose last step is at the peak, then falls along a half cosine that would
    reach `final_factor` one step after the last.
    """
    if step < num_warmup_steps:
        return (step + 1) / num_warmup_steps
    done = (step - num_warmup_steps) / (num_steps - num_warmup_steps)
    return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * done)) / 2


def set_rates(optimizer: optim.Optimizer, groups: Sequence[ParameterGroup], *, factor: float) -> None:
    """Give every group of the optimiser `factor` times its own peak rate."""
    for members, group in zip(optimizer.param_groups, groups, strict=True):
        members["lr"] = group.peak_lr * factor


def rate_table(groups: Sequence[ParameterGroup]) -> Table:
    """Return the groups as a table to print."""
    table = Table(title="learning rates", title_justify="left")
    table.add_column("group")
    for heading in ("parameters", "peak lr", "weight decay"):
        table.add_column(heading, justify="right")
    for group in groups:
        table.add_row(group.name, f"{group.num_parameters:,}", f"{group.peak_lr:.3g}", f"{group.weight_decay:g}")
    return table


def _group_name(depth: int | None, *, decayed: bool) -> str:
    part = "new parts" if depth is None else "embedding" if depth == 0 else f"block {depth - 1}"
    return part if decayed else f"{part}, no decay"
