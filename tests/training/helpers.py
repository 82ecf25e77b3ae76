"""A training that takes a second: three flat colours, and a voting classifier with a trunk of three blocks."""

from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from finevote.config import Config, config_from_values
from finevote.run_folder import RunFolder
from finevote.training.checkpoint import load_checkpoint

COLORS = {"blue": (40, 60, 200), "green": (40, 180, 70), "red": (200, 50, 40)}


def make_photographs(root: Path, *, num_train: int = 6, num_val: int = 3) -> Path:
    """Write train/ and val/ folders of three classes, 24 x 24 px with noise."""
    generator = np.random.default_rng(0)
    for split, number in (("train", num_train), ("val", num_val)):
        for name, color in COLORS.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = np.clip(np.array(color) + generator.normal(0, 40, (24, 24, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def tiny_values(**training: Any) -> dict[str, Any]:
    """Return settings with every random and every stateful part of the method switched on."""
    return {
        "name": "tiny",
        "data": {"image_size": 32, "num_workers": 0},
        "model": {
            "backbone": "vit_tiny_patch16_224",
            "backbone_args": {"depth": 4, "embed_dim": 24, "num_heads": 3, "patch_size": 8},
            "weights": "none",
            "drop_path": 0.2,
            "dropout": 0.1,
            "voting": {
                "num_votes_per_head": 4,
                "num_selected": 12,
                "num_key_tokens": 4,
                "dynamic_warmup_epochs": 1,
                "dynamic_momentum": 0.5,
            },
        },
        "optim": {"lr": 1e-3, "new_lr": 2e-3, "layer_decay": 0.8, "warmup_epochs": 1},
        "training": {"epochs": 3, "batch_size": 6, "images_per_class": 2, "ema_decay": 0.9, **training},
    }


def tiny_config(**training: Any) -> Config:
    return config_from_values(tiny_values(**training), source="test")


def changed(config: Config, section: str, **values: Any) -> Config:
    """Return the settings with values of one section replaced."""
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def final_state(run: Path) -> dict[str, Any]:
    return load_checkpoint(RunFolder(run).last_checkpoint)


def assert_same_state(first: Any, second: Any, *, ignored: AbstractSet[str] = frozenset(), at: str = "state") -> None:
    """Compare nested states bit by bit, but for the ignored keys."""
    assert type(first) is type(second), at
    if isinstance(first, dict):
        assert first.keys() == second.keys(), at
        for key in first.keys() - ignored:
            assert_same_state(first[key], second[key], ignored=ignored, at=f"{at}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), at
        for index, (ours, theirs) in enumerate(zip(first, second, strict=True)):
            assert_same_state(ours, theirs, ignored=ignored, at=f"{at}.{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), at
    else:
        assert first == second, at
