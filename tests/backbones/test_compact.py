import pytest
import torch
from torch import nn

from finevote.backbones.catalogue import build_backbone
from finevote.errors import ArgumentError


def build(**changes):
    return build_backbone("compact_vit", image_size=(32, 48), timm_args=changes)


@pytest.mark.parametrize("patch_size", [4, 8, 16])
def test_the_stem_reaches_the_patch_grid(patch_size):
    backbone = build(patch_size=patch_size, embed_dim=64)
    assert backbone.grid == (32 // patch_size, 48 // patch_size)
    assert backbone.embed(torch.randn(2, 3, 32, 48)).shape == (2, 1 + backbone.num_patches, 64)


@pytest.mark.parametrize("channels_per_group", [1, 8])
def test_an_image_s_tokens_do_not_depend_on_its_batch(channels_per_group):
    backbone = build(channels_per_group=channels_per_group)
    images = torch.randn(4, 3, 32, 48)
    torch.testing.assert_close(backbone.embed(images)[:1], backbone.embed(images[:1]))


def test_norm_groups_have_the_asked_width():
    norms = [module for module in build(channels_per_group=2).modules() if isinstance(module, nn.GroupNorm)]
    assert norms
    assert all(norm.num_channels == 2 * norm.num_groups for norm in norms)


@pytest.mark.parametrize("patch_size", [2, 12])
def test_a_patch_that_the_stem_cannot_reach_is_refused(patch_size):
    with pytest.raises(ArgumentError, match=f"patch_size={patch_size} of compact_vit must be a power of two from 4"):
        build(patch_size=patch_size)


def test_widths_that_norm_groups_do_not_divide_are_refused():
    with pytest.raises(ArgumentError, match=r"stages of \[30, 60\] channels cannot be normalised in groups of 8"):
        build(embed_dim=60)
