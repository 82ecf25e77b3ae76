"""Small models and settings that tests share."""

from finevote.build import build_model
from finevote.config import config_from_values


def tiny_config(**changes):
    """A three-block ViT on 32 px, 16 patches; `changes` are dotted settings with `__` for the dot."""
    values = {
        "data": {"image_size": 32, "resize": 36, "num_workers": 0},
        "model": {
            "backbone": "vit_tiny_patch16_224",
            "weights": "none",
            "backbone_args": {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3},
            "zero_init_classifier": False,
            "voting": {"num_votes_per_head": 4, "num_selected": 10, "num_key_tokens": 4, "dynamic_warmup_epochs": 0},
        },
        "training": {"epochs": 1, "batch_size": 8, "images_per_class": 2},
    }
    for name, value in changes.items():
        *sections, last = name.split("__")
        target = values
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return config_from_values(values, source="test")


def tiny_model(*, num_classes=5, **changes):
    """The model of `tiny_config`, in evaluation mode."""
    return build_model(tiny_config(**changes), num_classes=num_classes).eval()
