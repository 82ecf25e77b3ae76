"""A compact ViT for training from scratch on a few thousand images, registered with timm as `compact_vit`.

A patch projection learns slowly from few images; a short convolutional stem in its place sees edges and textures from
the first epochs (Xiao et al., "Early Convolutions Help Transformers See Better", 2021). Group norm instead of batch
norm keeps every image independent of its batch, which two-pass accumulation and ranks rely on.
"""

import math
from typing import Any

from timm.layers import PatchEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from finevote.errors import ArgumentError

default_cfgs = generate_default_cfgs(
    {
        "compact_vit": {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 112, 112),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "patch_embed.proj.0",
            "classifier": "head",
        }
    }
)


class ConvolutionalPatchEmbed(PatchEmbed):
    """timm's patch embedding, its projection replaced by 3x3 convolutions of stride 2 and a 1x1 projection.

    Args:
        patch_size: side of a patch in px, a power of two; log2 of it convolutions reach it.
        embed_dim: D; the convolutions' widths double up to D / 2 or more before the projection.
        **kwargs: as timm's.
    """

    def __init__(self, *, patch_size: int, embed_dim: int, in_chans: int = 3, **kwargs: Any) -> None:
        super().__init__(patch_size=patch_size, embed_dim=embed_dim, in_chans=in_chans, **kwargs)
        num_halvings = int(math.log2(patch_size))
        if 2**num_halvings != patch_size:
            raise ArgumentError(f"patch_size={patch_size} of compact_vit must be a power of two, e.g. 8 or 16")
        widths = [max(16, embed_dim // 2 ** (num_halvings - 1 - i)) for i in range(num_halvings)]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([in_chans, *widths], widths, strict=False):
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, outputs),
                nn.GELU(),
            ]
        self.proj = nn.Sequential(*layers, nn.Conv2d(widths[-1], embed_dim, 1))


@register_model
def compact_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:  # noqa: FBT001, FBT002
    """Build the compact ViT: 112 px, patch 8, width 96, 5 blocks, 4 heads unless `kwargs` says otherwise."""
    settings = {
        "img_size": 112,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 5,
        "num_heads": 4,
        "mlp_ratio": 3.0,
        "embed_layer": ConvolutionalPatchEmbed,
        **kwargs,
    }
    return build_model_with_cfg(VisionTransformer, "compact_vit", pretrained, **settings)
