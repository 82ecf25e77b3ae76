"""A compact ViT for training from scratch on a few thousand images, registered with timm as `compact_vit`.

A patch projection learns slowly from few images; a short convolutional stem in its place sees edges and textures from
the first epochs (Xiao et al., "Early Convolutions Help Transformers See Better", 2021).
"""

import math
from functools import partial
from itertools import pairwise
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
            "first_conv": "patch_embed.proj.0.0",
            "classifier": "head",
        }
    }
)


class ConvolutionalPatchEmbed(PatchEmbed):  # type: ignore[misc]  # timm ships no types
    """timm's patch embedding, its projection replaced by convolutions.

    A 7x7 convolution of stride 4 and a 3x3 one, then as often as the patch needs a pair of 3x3 ones that halves the
    image. Group norm keeps every image independent of its batch, as two-pass accumulation and ranks need it.

    Args:
        patch_size: side of a patch in px, a power of two from 4.
        embed_dim: D; the last stage is as wide, each earlier one half as wide (16 at least).
        channels_per_group: of the norms. 1 sees shapes soonest and forgets colours; more keep them.
        **kwargs: as timm's.
    """

    def __init__(
        self, *, patch_size: int, embed_dim: int, in_chans: int = 3, channels_per_group: int = 8, **kwargs: Any
    ) -> None:
        super().__init__(patch_size=patch_size, embed_dim=embed_dim, in_chans=in_chans, **kwargs)
        num_stages = int(math.log2(patch_size)) - 1
        if patch_size < 4 or 2 ** (num_stages + 1) != patch_size:
            raise ArgumentError(f"patch_size={patch_size} of compact_vit must be a power of two from 4, e.g. 8 or 16")
        widths = [max(16, embed_dim // 2 ** (num_stages - 1 - i)) for i in range(num_stages)]
        _check_widths(widths, channels_per_group)
        convolution = partial(_convolution, channels_per_group=channels_per_group)
        stages = [convolution(in_chans, widths[0], size=7, stride=4), convolution(widths[0], widths[0])]
        for inputs, outputs in pairwise(widths):
            stages += [convolution(inputs, outputs, stride=2), convolution(outputs, outputs)]
        self.proj = nn.Sequential(*stages)


def _check_widths(widths: list[int], channels_per_group: int) -> None:
    if any(width % channels_per_group for width in widths):
        raise ArgumentError(
            f"stages of {widths} channels cannot be normalised in groups of {channels_per_group}: choose an embed_dim "
            f"that halves {len(widths) - 1} times to a multiple of {channels_per_group}"
        )


def _convolution(
    inputs: int, outputs: int, *, channels_per_group: int, size: int = 3, stride: int = 1
) -> nn.Sequential:
    padding = (size - 1) // 2
    convolution = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(outputs // channels_per_group, outputs), nn.GELU())


@register_model  # type: ignore[untyped-decorator]
def compact_vit(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:  # noqa: FBT001, FBT002
    """Build the compact ViT: 112 px, patch 8, width 96, 4 blocks, 4 heads unless `kwargs` says otherwise."""
    embed_layer = partial(ConvolutionalPatchEmbed, channels_per_group=kwargs.pop("channels_per_group", 8))
    settings = {
        "img_size": 112,
        "patch_size": 8,
        "embed_dim": 96,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 2.0,
        "weight_init": "jax",
        "embed_layer": embed_layer,
        **kwargs,
    }
    return build_model_with_cfg(VisionTransformer, "compact_vit", pretrained, **settings)
