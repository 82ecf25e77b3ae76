import copy

import pytest
import torch
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat
from timm.models.eva import EvaAttention, EvaBlock
from timm.models.vision_transformer import Block
from torch import nn

from finevote.backbones.layer import VitLayer
from finevote.backbones.rotary import NO_PATCH
from finevote.backbones.timm_vit import TimmVit
from finevote.errors import ArgumentError
from finevote.noise import Noise
from tests.backbones.families import FAMILIES, make_vit, randomised

ROTARY = ["dinov3", "eva02 B", "learnt rotations", "grouped keys"]
EVERY_OPTION = {"qk_norm": True, "scale_norm": True, "gated": True, "norm_layer": nn.LayerNorm}


@pytest.mark.parametrize(
    "attention",
    [
        Attention(24, num_heads=3, qkv_bias=True, **EVERY_OPTION),
        EvaAttention(24, num_heads=3, **EVERY_OPTION),
        EvaAttention(24, num_heads=3, qkv_fused=False, **EVERY_OPTION),
        EvaAttention(24, num_heads=3, qkv_bias=False, **EVERY_OPTION),
        AttentionRope(24, num_heads=3, **EVERY_OPTION),
        AttentionRope(24, num_heads=4, num_kv_heads=2, qkv_fused=False, **EVERY_OPTION),
    ],
    ids=["fused", "eva", "eva split", "eva without bias", "rope", "rope grouped"],
)
def test_every_option_of_timm_s_attentions_is_followed(attention):
    block = (Block if type(attention) is Attention else EvaBlock)(24, num_heads=3, norm_layer=nn.LayerNorm)
    block.attn = attention
    tokens, block = torch.randn(2, 7, 24), randomised(block.eval())
    torch.testing.assert_close(VitLayer(block)(tokens, num_prefix=1).tokens, block(tokens), rtol=1e-5, atol=1e-5)


@pytest.fixture(params=ROTARY)
def rotary(request):
    """The last block of a rotary model, as timm has it and as a layer, and timm's rotation of each patch."""
    vit = make_vit(request.param, patches=(2, 4))
    block = copy.deepcopy(vit.blocks[-1])
    block.attn.num_prefix_tokens = 1
    rope = vit.rope.eval().get_embed()
    return block, TimmVit(vit).layers[-1].eval(), rope[-1] if vit.rope_mixed else rope


def test_all_patches_in_order_are_the_whole_sequence(rotary):
    block, layer, rope = rotary
    tokens = torch.randn(3, 1 + 8, 48)
    patches = torch.arange(8).expand(3, -1)
    expected = block(tokens, rope=rope)
    for given in (patches, None):
        torch.testing.assert_close(layer(tokens, num_prefix=1, patches=given).tokens, expected, rtol=1e-5, atol=1e-5)


def test_chosen_patches_keep_their_own_rotation(rotary):
    """Other patches in every image, in any order, one of them twice: timm's block with those rows of its embedding."""
    block, layer, rope = rotary
    tokens = torch.randn(2, 1 + 4, 48)
    patches = torch.tensor([[5, 0, 7, 7], [1, 2, 3, 6]])
    output = layer(tokens, num_prefix=1, patches=patches)
    for image in range(2):
        expected = block(tokens[image : image + 1], rope=rope[..., patches[image], :])
        torch.testing.assert_close(output.tokens[image : image + 1], expected, rtol=1e-5, atol=1e-5)


def test_the_order_of_tokens_does_not_matter(rotary):
    _, layer, _ = rotary
    tokens, patches = torch.randn(1, 1 + 5, 48), torch.tensor([[4, 1, 6, 0, 2]])
    order = torch.tensor([3, 0, 4, 2, 1])
    output = layer(tokens, num_prefix=1, patches=patches)
    shuffled = layer(torch.cat([tokens[:, :1], tokens[:, 1 + order]], 1), num_prefix=1, patches=patches[:, order])
    torch.testing.assert_close(shuffled.rows, output.rows[..., order])
    torch.testing.assert_close(shuffled.tokens[:, 1:], output.tokens[:, 1 + order], rtol=1e-5, atol=1e-5)


def test_a_token_of_no_patch_is_not_turned(rotary):
    block, layer, rope = rotary
    tokens = torch.randn(1, 1 + 3, 48)
    output = layer(tokens, num_prefix=1, patches=torch.tensor([[NO_PATCH, 5, 2]]))
    block.attn.num_prefix_tokens = 2
    torch.testing.assert_close(output.tokens, block(tokens, rope=rope[..., [5, 2], :]), rtol=1e-5, atol=1e-5)


def test_positions_matter_in_a_rotary_layer_and_in_no_other(rotary):
    _, layer, _ = rotary
    tokens = torch.randn(1, 1 + 2, 48)
    near, far = (layer(tokens, num_prefix=1, patches=torch.tensor([pair])).tokens for pair in ([0, 1], [0, 7]))
    assert not torch.allclose(near, far)
    plain = VitLayer(make_vit("plain").blocks[0])
    near, far = (plain(tokens, num_prefix=1, patches=torch.tensor([pair])).tokens for pair in ([0, 1], [0, 7]))
    assert torch.equal(near, far)


def test_the_rotation_turns_pairs_of_channels(rotary):
    """Lengths are kept: each pair of channels is turned, not scaled."""
    _, layer, rope = rotary
    queries = torch.randn(1, 3, 8, 16)
    turned = apply_rot_embed_cat(queries, rope, half=layer.attn.rotate_half)
    torch.testing.assert_close(turned.norm(dim=-1), queries.norm(dim=-1))


def test_drop_path_drops_the_same_images_however_the_batch_is_cut():
    layer = VitLayer(make_vit("plain").blocks[1], drop_path=0.5, stream=1).train()
    tokens = torch.randn(8, 10, 48)
    whole = layer(tokens, num_prefix=1, noise=Noise(7, 0, 8)).tokens
    parts = [layer(tokens[i : i + 2], num_prefix=1, noise=Noise(7, i, 8)).tokens for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert not torch.equal(whole, layer(tokens, num_prefix=1, noise=Noise(8, 0, 8)).tokens)


def test_drop_path_is_off_in_evaluation():
    layer = VitLayer(make_vit("plain").blocks[0], drop_path=0.9).eval()
    tokens = torch.randn(4, 10, 48)
    noisy = layer(tokens, num_prefix=1, noise=Noise(0, 0, 4)).tokens
    assert torch.equal(noisy, layer(tokens, num_prefix=1).tokens)


@pytest.mark.parametrize("kind", ["plain", "dinov3", "siglip"])
def test_no_matrix_of_all_tokens_by_all_tokens_is_made(kind):
    """Fused attention is the only place where all tokens meet all tokens."""
    backbone = TimmVit(make_vit(kind, patches=(10, 10)))
    tokens = backbone.embed(torch.randn(1, 3, *backbone.image_size))
    num_tokens, shapes = tokens.shape[1], []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                shapes.append(tuple(result.shape))
            return result

    with Watch():
        backbone.layers[0](tokens, num_prefix=backbone.num_prefix)
    assert shapes
    assert not any(sum(size in (num_tokens, num_tokens - 1) for size in shape) >= 2 for shape in shapes)


@pytest.mark.parametrize("family", FAMILIES)
def test_wanted_tokens_are_those_of_the_whole_output(family):
    """Written alone, in any order, they are what they were among all; and so are the gradients of what came in."""
    backbone = TimmVit(make_vit(family))
    layer, num_prefix = backbone.layers[-1].eval(), backbone.num_prefix
    tokens = torch.randn(2, num_prefix + backbone.num_patches, backbone.dim, requires_grad=True)
    wanted = torch.tensor([[0, num_prefix + 3, num_prefix], [num_prefix + 1, 0, num_prefix + 3]])
    whole = layer(tokens, num_prefix=num_prefix)
    reading = layer.read(tokens, num_prefix=num_prefix, every_query=False)
    torch.testing.assert_close(reading.rows, whole.rows, rtol=1e-5, atol=1e-7)
    assert not reading.rows.requires_grad
    chosen = layer.write(reading, wanted=wanted)
    expected = torch.stack([whole.tokens[image, positions] for image, positions in enumerate(wanted)])
    torch.testing.assert_close(chosen, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(chosen)
    got, full = (torch.autograd.grad((some * weights).sum(), tokens)[0] for some in (chosen, expected))
    torch.testing.assert_close(got, full, rtol=1e-4, atol=1e-5)


def test_a_reading_is_written_once_and_holds_its_heads_no_longer():
    layer = VitLayer(Block(48, num_heads=3))
    reading = layer.read(torch.randn(1, 5, 48), num_prefix=1)
    layer.write(reading)
    assert reading.heads is None
    with pytest.raises(ArgumentError, match="a reading can be written once: read the tokens again"):
        layer.write(reading)


def test_a_reading_without_every_query_cannot_write_every_token():
    layer = VitLayer(make_vit("plain").blocks[0])
    reading = layer.read(torch.randn(1, 5, 48), num_prefix=1, every_query=False)
    with pytest.raises(ArgumentError, match="can only write wanted tokens"):
        layer.write(reading)
