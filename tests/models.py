"""Small models and settings that tests share."""

from finevote.build import build_model
from finevote.config import config_from_values

NARROW = {"patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}

# What `tiny_config` changes for a small model of each family.
FAMILIES = {
    title: {"model__backbone": name, "model__backbone_args": NARROW}
    for title, name in {
        "dinov2 with registers": "dinov2_vits14_reg4",
        "dinov3": "dinov3_vits16",
        "dinov3 H+": "dinov3_vith16plus",
        "clip": "clip_vitb16",
        "siglip2": "siglip2_vitb16_224",
        "eva02": "eva02_vitb14",
        "learnt rotations": "vit_small_patch16_rope_mixed_224",
    }.items()
}


def tiny_config(**changes):
    """A three-block ViT on 32 px, 16 patches; `changes` are dotted settings with `__` for the dot."""
    values = {
        "data": {"image_size": 32, "resize": 36, "num_workers": 0},
        "model": {
            "backbone": "vit_tiny_patch16_224",
            "weights": "none",
            "backbone_args": NARROW,
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
