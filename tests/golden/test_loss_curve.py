"""Twenty steps of training must give the losses on record: a refactor that moves them changed the numerics.

`python -m tests.golden.test_loss_curve` writes the record anew; say why in the changelog's Numerics section.
"""

import json
from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric

from finevote.build import build_loss, build_model, build_preprocessing, build_train_loader
from finevote.data.synthetic import synthetic_source
from finevote.training.optim import build_optimizer, group_parameters
from finevote.training.step import accumulate
from tests.models import tiny_config

RECORD = Path(__file__).parent / "loss_curve.json"
NUM_STEPS = 20


def train():
    """Return the losses and the budget of 20 steps of the whole method, dropout, drop-path and merging included."""
    config = tiny_config(
        model__dropout=0.1,
        model__drop_path=0.2,
        model__voting__merge=True,
        model__voting__smoothing="learnable",
        model__voting__dynamic_momentum=0.1,
        training__micro_batch=4,
    )
    source = synthetic_source(splits=("train",), image_size=48, images_per_class={"train": 16})
    fabric = Fabric(accelerator="cpu", devices=1)
    model = build_model(config, num_classes=len(source.class_names)).train()
    loader = build_train_loader(config, source, build_preprocessing(config.data, model.backbone))
    groups = group_parameters(model, lr=1e-3, new_lr=None, layer_decay=0.8, weight_decay=0.05)
    optimizer = build_optimizer(groups, name="adamw", momentum=0.9, betas=(0.9, 0.999))
    wrapped, losses = fabric.setup_module(model), []
    for step, batch in zip(range(NUM_STEPS), loader, strict=False):
        optimizer.zero_grad()
        result = accumulate(
            fabric, wrapped, batch, build_loss(config), triplet_weight=0.1, micro_batch=4, noise_seed=step
        )
        optimizer.step()
        model.update_budget(result.layer_picks)
        losses.append({name: round(value.item(), 6) for name, value in result.losses.items()})
    return {"torch": torch.__version__.partition("+")[0], "losses": losses, "budget": list(model.budget)}


def test_twenty_steps_give_the_losses_on_record():
    recorded, now = json.loads(RECORD.read_text()), train()
    assert len(now["losses"]) == NUM_STEPS
    for step, (expected, got) in enumerate(zip(recorded["losses"], now["losses"], strict=True)):
        assert got == pytest.approx(expected, rel=2e-3, abs=2e-4), f"step {step}"
    assert now["budget"] == recorded["budget"]


if __name__ == "__main__":
    RECORD.write_text(json.dumps(train(), indent=1) + "\n")
