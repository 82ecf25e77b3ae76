import io
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from finevote.training.optim import (
    build_optimizer,
    decays,
    group_parameters,
    rate_table,
    schedule_factor,
    set_rates,
)


class Layered(nn.Module):
    """Three blocks, an embedding and a classifier, with the two questions that the grouping asks."""

    num_blocks = 3

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.embed = nn.Linear(2, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)) for _ in range(3))
        self.classifier = nn.Linear(4, 5)

    def depth_of(self, parameter_name: str) -> int | None:
        part = parameter_name.split(".")
        if part[0] == "blocks":
            return int(part[1]) + 1
        return None if part[0] == "classifier" else 0


def groups_of(model, **changes):
    settings = {"lr": 1e-3, "new_lr": None, "layer_decay": 0.5, "weight_decay": 0.05} | changes
    return group_parameters(model, **settings)


def test_peak_rates_fall_by_layer_decay_towards_the_input():
    peaks = {group.name: group.peak_lr for group in groups_of(Layered(), new_lr=1e-2)}
    expected = {
        "embedding": 1.25e-4,  # 1e-3 x 0.5 ** 3
        "block 0": 2.5e-4,
        "block 1": 5e-4,
        "block 2": 1e-3,
        "new parts": 1e-2,
    }
    expected |= {f"{name}, no decay": peak for name, peak in expected.items()}
    assert peaks == pytest.approx(expected)


def test_new_parts_have_the_rate_of_the_last_block_unless_given_their_own():
    groups = {group.name: group for group in groups_of(Layered())}
    assert groups["new parts"].peak_lr == groups["block 2"].peak_lr == 1e-3


def test_biases_norms_and_tokens_do_not_decay():
    model = Layered()
    not_decayed = {name for name, parameter in model.named_parameters() if not decays(name, parameter)}
    matrices = {"embed.weight", "classifier.weight", *(f"blocks.{i}.1.weight" for i in range(3))}
    assert not_decayed == {name for name, _ in model.named_parameters()} - matrices
    assert {group.weight_decay for group in groups_of(model) if group.name.endswith("no decay")} == {0.0}
    assert {group.weight_decay for group in groups_of(model) if not group.name.endswith("no decay")} == {0.05}


def test_every_trainable_parameter_is_in_one_group():
    model = Layered()
    grouped = [id(parameter) for group in groups_of(model) for parameter in group.parameters]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_frozen_parameters_are_in_no_group():
    model = Layered()
    model.blocks.requires_grad_(False)
    assert not any(group.name.startswith("block") for group in groups_of(model))


def test_a_group_describes_itself():
    embedding = next(group for group in groups_of(Layered()) if group.name == "embedding")
    assert embedding.describe() == {
        "name": "embedding",
        "num_parameters": 8,
        "peak_lr": pytest.approx(1.25e-4),
        "weight_decay": 0.05,
    }


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_rate_set_is_the_rate_used(name, kind):
    groups = groups_of(Layered(), new_lr=1e-2)
    optimizer = build_optimizer(groups, name=name, momentum=0.9, betas=(0.9, 0.99))
    assert isinstance(optimizer, kind)
    set_rates(optimizer, groups, factor=0.1)
    used = [members["lr"] for members in optimizer.param_groups]
    assert used == pytest.approx([0.1 * group.peak_lr for group in groups])


def test_the_first_step_of_sgd_moves_each_group_by_its_own_rate():
    model = Layered()
    groups = groups_of(model, new_lr=1e-2, weight_decay=0.0)
    optimizer = build_optimizer(groups, name="sgd", momentum=0.0, betas=(0.9, 0.99))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    for name, lr in {"embed.weight": 1.25e-4, "blocks.1.1.bias": 5e-4, "classifier.weight": 1e-2}.items():
        torch.testing.assert_close(before[name] - after[name], torch.full_like(before[name], lr), atol=1e-7, rtol=0)


def test_a_frozen_backbone_keeps_its_bits_though_the_optimizer_decays_weights():
    model = Layered()
    groups = groups_of(model, weight_decay=0.5)
    optimizer = build_optimizer(groups, name="adamw", momentum=0.9, betas=(0.9, 0.99))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(model.depth_of(name) is None)
    for _ in range(3):
        optimizer.zero_grad()
        sum(parameter.sum() for parameter in model.classifier.parameters()).backward()
        optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (6, 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2), (8, 0.55), (12, 0.1)],
)
def test_the_schedule_has_its_known_values(step, factor):
    assert schedule_factor(step, num_steps=12, num_warmup_steps=4, final_factor=0.1) == pytest.approx(factor)


@given(num_steps=st.integers(2, 200), num_warmup_steps=st.integers(0, 250), final_factor=st.floats(0, 1))
def test_the_schedule_rises_to_the_peak_then_falls_to_its_end(num_steps, num_warmup_steps, final_factor):
    settings = {"num_steps": num_steps, "num_warmup_steps": num_warmup_steps, "final_factor": final_factor}
    factors = [schedule_factor(step, **settings) for step in range(num_steps)]
    rising, falling = factors[:num_warmup_steps], factors[num_warmup_steps:]
    assert rising == sorted(rising)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(falling))
    assert all(0 < factor <= 1 for factor in rising)
    assert all(final_factor - 1e-12 <= factor <= 1 for factor in falling)


def test_the_table_shows_every_group_with_its_rate():
    groups = groups_of(Layered(), new_lr=1e-2)
    console = Console(file=io.StringIO(), width=100)
    console.print(rate_table(groups))
    written = console.file.getvalue()
    assert all(group.name in written for group in groups)
    assert "0.000125" in written
