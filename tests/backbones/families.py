"""One small model for each way in which timm builds a vision transformer that can be read."""

import copy
from functools import cache

import torch
from torch import nn

from finevote.backbones.catalogue import create_vit

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3}
FAMILIES = {
    "plain": ("vit_tiny_patch16_224", {}),
    "q/k norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "dinov2": ("vit_small_patch14_dinov2.lvd142m", {}),
    "dinov2, registers": ("vit_small_patch14_reg4_dinov2.lvd142m", {}),
    "dinov2 g": ("vit_giant_patch14_dinov2.lvd142m", {}),
    "dinov3": ("vit_small_patch16_dinov3.lvd1689m", {}),
    "dinov3, biases": ("vit_small_patch16_dinov3_qkvb.lvd1689m", {}),
    "dinov3 H+": ("vit_huge_plus_patch16_dinov3.lvd1689m", {}),
    "clip": ("vit_base_patch16_clip_quickgelu_224.openai", {}),
    "siglip": ("vit_base_patch16_siglip_224.v2_webli", {}),
    "eva02 S": ("eva02_small_patch14_224.mim_in22k", {}),
    "eva02 B": ("eva02_base_patch14_224.mim_in22k", {}),
    "learnt rotations": ("vit_small_patch16_rope_mixed_224", {}),
    "grouped keys": ("vit_base_patch16_sapiens2.fb", {"num_kv_heads": 1}),
    "rotary without CLS": ("vit_betwixt_patch16_rope_reg4_gap_256", {}),
}


def patch_px(kind):
    return 14 if "patch14" in FAMILIES[kind][0] else 16


def make_vit(kind, *, patches=(3, 3)):
    """Return the timm model of a family, random everywhere, so that nothing hides behind a zero."""
    return copy.deepcopy(_make_vit(kind, patches))


@cache
def _make_vit(kind, patches):
    name, changes = FAMILIES[kind]
    torch.manual_seed(0)
    size = (patches[0] * patch_px(kind), patches[1] * patch_px(kind))
    return randomised(create_vit(name, image_size=size, timm_args=SMALL | changes).eval())


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module
