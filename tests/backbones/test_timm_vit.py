import pytest
import timm
import torch
from torch import nn

from finevote.backbones.catalogue import build_backbone
from finevote.backbones.timm_vit import TimmVit, VitLayer
from finevote.errors import UnsupportedModelError
from finevote.noise import Noise

SMALL = {"embed_dim": 48, "depth": 3, "num_heads": 3}
MODELS = {
    "plain": ("vit_tiny_patch16_224", {}),
    "registers": ("vit_small_patch14_reg4_dinov2.lvd142m", {}),
    "layer scale": ("vit_small_patch14_dinov2.lvd142m", {}),
    "swiglu": ("vit_giant_patch14_dinov2.lvd142m", {}),
    "q/k norm": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "clip's pre-norm": ("vit_base_patch16_clip_224.openai", {}),
}


def make_vit(kind, img_size):
    name, changes = MODELS[kind]
    torch.manual_seed(0)
    vit = timm.create_model(name, img_size=img_size, num_classes=0, **(SMALL | changes)).eval()
    for parameter in vit.parameters():  # random everywhere, so that nothing hides behind a zero
        nn.init.normal_(parameter, std=0.2)
    return vit


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("patches", [(3, 3), (2, 5)], ids=["square", "rectangle"])
def test_layers_give_timm_s_own_output(kind, patches):
    patch = timm.create_model(MODELS[kind][0], num_classes=0, **SMALL).patch_embed.patch_size[0]
    vit = make_vit(kind, (patches[0] * patch, patches[1] * patch))
    images = torch.randn(2, 3, *vit.patch_embed.img_size)
    expected = vit.forward_features(images)
    backbone = TimmVit(vit).eval()
    assert backbone.grid == patches
    tokens = backbone.embed(images)
    for layer in backbone.layers:
        tokens, _ = layer(tokens, num_prefix=backbone.num_prefix)
    torch.testing.assert_close(backbone.norm(tokens), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_rows_equal_timm_s_unfused_attention(kind):
    vit = make_vit(kind, timm.create_model(MODELS[kind][0], num_classes=0, **SMALL).patch_embed.patch_size[0] * 3)
    images, seen = torch.randn(2, 3, *vit.patch_embed.img_size), []
    for block in vit.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    vit.forward_features(images)
    backbone = TimmVit(vit).eval()
    tokens = backbone.embed(images)
    for layer, full in zip(backbone.layers, seen, strict=True):
        tokens, rows = layer(tokens, num_prefix=backbone.num_prefix)
        torch.testing.assert_close(rows, full[:, :, 0, backbone.num_prefix :], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224:diff", "attention DiffAttention is not supported"),
        ("vit_small_patch16_36x1_224:parallel", "ParallelThingsBlock is not supported"),
        ("vit_medium_patch16_gap_256", "has no CLS token"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer .* is not a vision transformer"),
        ("eva02_tiny_patch14_224", "Eva is not a timm VisionTransformer"),
        ("vit_tiny_patch16_224:dynamic", "dynamic_img_size and global_pool are not supported"),
        ("vit_tiny_patch16_224:pool", "dynamic_img_size and global_pool are not supported"),
        ("vit_tiny_patch16_224:attn_drop", "dropout inside blocks"),
        ("vit_tiny_patch16_224:patch_drop", "patch_drop_rate and pos_drop_rate are not supported"),
    ],
)
def test_what_cannot_vote_is_refused_by_name(name, reason):
    from timm.models.vision_transformer import ParallelThingsBlock

    changes = {
        "diff": {"attn_layer": "diff"},
        "parallel": {"block_fn": ParallelThingsBlock, "depth": 2},
        "dynamic": {"dynamic_img_size": True},
        "pool": {"global_pool": "avg"},
        "attn_drop": {"attn_drop_rate": 0.1},
        "patch_drop": {"patch_drop_rate": 0.1},
    }
    model, _, change = name.partition(":")
    size = (256, 256) if "256" in model else (224, 224)
    with pytest.raises(UnsupportedModelError, match=reason):
        build_backbone(model, image_size=size, timm_args=changes.get(change))


def test_drop_path_drops_the_same_images_however_the_batch_is_cut():
    vit = make_vit("plain", 48)
    layer = VitLayer(vit.blocks[1], drop_path=0.5, stream=1).train()
    tokens = torch.randn(8, 10, 48)
    whole = layer(tokens, num_prefix=1, noise=Noise(7, 0, 8)).tokens
    parts = [layer(tokens[i : i + 2], num_prefix=1, noise=Noise(7, i, 8)).tokens for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.equal(whole, layer(tokens, num_prefix=1, noise=Noise(8, 0, 8)).tokens)


def test_drop_path_is_off_in_evaluation():
    layer = VitLayer(make_vit("plain", 48).blocks[0], drop_path=0.9).eval()
    tokens = torch.randn(4, 10, 48)
    noisy = layer(tokens, num_prefix=1, noise=Noise(0, 0, 4)).tokens
    assert torch.equal(noisy, layer(tokens, num_prefix=1).tokens)


def test_no_matrix_of_all_tokens_by_all_tokens_is_made():
    """Fused attention is the only place where all tokens meet all tokens."""
    vit = make_vit("plain", 160)
    tokens = TimmVit(vit).embed(torch.randn(1, 3, 160, 160))
    num_tokens, shapes = tokens.shape[1], []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                shapes.append(tuple(result.shape))
            return result

    with Watch():
        VitLayer(vit.blocks[0])(tokens, num_prefix=1)
    assert shapes
    assert not any(shape.count(num_tokens) >= 2 for shape in shapes)
