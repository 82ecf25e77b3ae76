import copy

import pytest
import timm
import torch
from timm.models.eva import EvaBlock
from torch import nn

from finevote.backbones.catalogue import build_backbone, create_vit
from finevote.backbones.timm_vit import TimmVit
from finevote.errors import UnsupportedModelError
from tests.backbones.families import FAMILIES, SMALL, make_vit, randomised

WITHOUT_CLS = ("siglip", "rotary without CLS")


def run(backbone, images):
    """Return normed tokens, and the rows of every layer."""
    tokens, all_rows = backbone.embed(images), []
    for layer in backbone.layers:
        tokens, rows = layer(tokens, num_prefix=backbone.num_prefix)
        all_rows.append(rows)
    return backbone.norm(tokens), all_rows


def as_timm_builds_it(kind, vit):
    """Return the same weights in a model with timm's own choice of pooling, norm and dynamic size."""
    name, changes = FAMILIES[kind]
    native = timm.create_model(name, img_size=vit.patch_embed.img_size, num_classes=0, **(SMALL | changes)).eval()
    state = vit.state_dict()
    if isinstance(native.norm, nn.Identity):
        state = {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: state[key] for key in state}
    missing, unexpected = native.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith("attn_pool.") for key in missing)
    return native


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("patches", [(3, 3), (2, 5)], ids=["square", "rectangle"])
def test_tokens_are_those_of_timm_s_own_model(kind, patches):
    vit = make_vit(kind, patches=patches)
    native = as_timm_builds_it(kind, vit)
    images = torch.randn(2, 3, *vit.patch_embed.img_size)
    expected = native.forward_features(images)
    if isinstance(native.norm, nn.Identity):
        expected = native.fc_norm(expected)
    backbone = TimmVit(vit).eval()
    tokens, _ = run(backbone, images)
    assert backbone.grid == patches
    assert tokens.shape[1] == backbone.num_prefix + backbone.num_patches
    torch.testing.assert_close(tokens[:, kind in WITHOUT_CLS :], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("patches", [(3, 3), (2, 5)], ids=["square", "rectangle"])
def test_rows_equal_timm_s_unfused_attention(kind, patches):
    """Every block of timm in turn, with the whole N x N matrix; a summary token is masked out of the keys."""
    vit, seen = make_vit(kind, patches=patches), []
    backbone = TimmVit(copy.deepcopy(vit)).eval()
    images = torch.randn(2, 3, *vit.patch_embed.img_size)
    tokens = backbone.embed(images)
    mask = torch.zeros(tokens.shape[1], tokens.shape[1])
    if kind in WITHOUT_CLS:
        mask[:, 0] = -torch.inf
    for index, block in enumerate(vit.blocks):
        block.attn.fused_attn, block.attn.num_prefix_tokens = False, backbone.num_prefix
        block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        tokens = block(tokens, **rope_of(vit, index), attn_mask=mask)
    ours, all_rows = run(backbone, images)
    for rows, full in zip(all_rows, seen, strict=True):
        torch.testing.assert_close(rows, full[:, :, 0, backbone.num_prefix :], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours, backbone.norm(tokens), rtol=1e-5, atol=1e-5)


def rope_of(vit, block):
    """Return the argument that timm gives its rotary blocks."""
    if getattr(vit, "rope", None) is None:
        return {}
    embedded = vit.rope.get_embed()
    return {"rope": embedded[block] if vit.rope_mixed else embedded}


@pytest.mark.parametrize("kind", WITHOUT_CLS)
def test_a_summary_token_starts_as_the_mean_of_the_patches_and_is_heard_by_none(kind):
    backbone = TimmVit(make_vit(kind)).eval()
    images = torch.randn(2, 3, *backbone.image_size)
    tokens = backbone.embed(images)
    torch.testing.assert_close(tokens[:, 0], tokens[:, backbone.num_prefix :].mean(1))
    changed = tokens.clone()
    changed[:, 0] += 1
    for layer in backbone.layers:
        tokens, changed = (layer(some, num_prefix=backbone.num_prefix).tokens for some in (tokens, changed))
    assert torch.equal(tokens[:, 1:], changed[:, 1:])
    assert not torch.allclose(tokens[:, 0], changed[:, 0])


@pytest.mark.parametrize("kind", ["eva02 S", "siglip", "plain"])
def test_the_final_norm_is_the_one_that_the_weights_were_trained_with(kind):
    vit = make_vit(kind)
    norm, backbone = vit.norm, TimmVit(vit)
    assert backbone.norm is norm
    assert not isinstance(norm, nn.Identity)


def test_a_norm_that_timm_puts_after_pooling_is_the_final_one():
    vit = create_vit("vit_tiny_patch16_224", image_size=(32, 32), timm_args={"depth": 1, "fc_norm": True})
    assert isinstance(vit.norm, nn.Identity)
    assert TimmVit(vit).norm is vit.fc_norm


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224:diff", "attention DiffAttention is not supported: choose .* `Attention`, `EvaAtt"),
        ("vit_small_patch16_36x1_224:parallel", "ParallelThingsBlock is not supported"),
        ("eva02_tiny_patch14_224:post", "EvaBlockPostNorm is not supported: .* plain pre-norm blocks"),
        ("swin_tiny_patch4_window7_224", r"SwinTransformer is not a timm `VisionTransformer`.*choose a vit_\*"),
        ("vit_relpos_small_patch16_224", "VisionTransformerRelPos is not a timm"),
        (
            "vit_tiny_patch16_224:dynamic",
            "dynamic_img_size in model.backbone_args .*: the image size is data.image_size",
        ),
        ("vit_tiny_patch16_224:pool", "global_pool in .* is not supported: the class is read from the CLS token"),
        ("vit_tiny_patch16_224:drop_path", "drop_path_rate in .* is not supported: use model.drop_path"),
        ("vit_small_patch16_dinov3:jitter", "rope_jitter_coords .*: positions are the same in training and in use"),
        ("vit_tiny_patch16_224:attn_drop", "dropout inside blocks"),
        ("vit_tiny_patch16_224:patch_drop", "patch_drop_rate and pos_drop_rate are not supported"),
        ("eva02_tiny_patch14_224:patch_drop", "patch_drop_rate and pos_drop_rate are not supported"),
    ],
)
def test_what_cannot_vote_is_refused_by_name(name, reason):
    from timm.models.vision_transformer import ParallelThingsBlock

    changes = {
        "diff": {"attn_layer": "diff"},
        "parallel": {"block_fn": ParallelThingsBlock, "depth": 2},
        "post": {"use_post_norm": True},
        "dynamic": {"dynamic_img_size": True},
        "pool": {"global_pool": "avg"},
        "drop_path": {"drop_path_rate": 0.1},
        "jitter": {"rope_jitter_coords": 2.0},
        "attn_drop": {"attn_drop_rate": 0.1},
        "patch_drop": {"patch_drop_rate": 0.1},
    }
    model, _, change = name.partition(":")
    with pytest.raises(UnsupportedModelError, match=reason):
        create_vit(model, image_size=(224, 224), timm_args=changes.get(change, {}), device="meta")


def test_rotary_positions_of_training_are_those_of_use():
    """Sapiens2 asks for random rescaling of the coordinates in training; here it is off."""
    vit = make_vit("grouped keys")
    assert vit.rope.aug_active
    backbone = TimmVit(vit).train()
    images = torch.randn(1, 3, *backbone.image_size)
    assert torch.equal(run(backbone, images)[0], run(backbone.eval(), images)[0])


@pytest.mark.parametrize("kind", ["dinov3", "eva02 B"])
def test_tables_of_positions_are_not_saved(kind):
    backbone = TimmVit(make_vit(kind))
    assert not [name for name in backbone.state_dict() if "rotation" in name]


def test_learnt_rotations_belong_to_their_layer():
    vit = make_vit("learnt rotations")
    frequencies = vit.rope.freqs.detach().clone()
    backbone = TimmVit(vit)
    for index, layer in enumerate(backbone.layers):
        assert torch.equal(layer.rotation.frequencies, frequencies[:, index])
    assert "layers.1.rotation.frequencies" in backbone.state_dict()


def test_an_eva_block_s_scale_is_kept_under_one_name():
    vit = make_vit("dinov3")
    gamma, backbone = vit.blocks[1].gamma_2, TimmVit(vit)
    assert isinstance(vit.blocks[1], EvaBlock)
    assert backbone.layers[1].ls2.gamma is gamma


@pytest.mark.parametrize("kind", FAMILIES)
def test_weights_of_timm_s_own_model_are_taken_whole_but_for_its_heads(kind, tmp_path):
    """With a classifier, and pooling heads where timm has them: `attn_pool.*`, `head_dist.*`, a norm after pooling."""
    name, changes = FAMILIES[kind]
    native = randomised(timm.create_model(name, num_classes=7, **(SMALL | changes)))
    torch.save(native.state_dict(), tmp_path / "weights.pth")
    args = {"timm_args": SMALL | changes, "image_size": native.patch_embed.img_size}
    backbone = build_backbone(name, weights=str(tmp_path / "weights.pth"), **args)
    norm = native.fc_norm if isinstance(native.norm, nn.Identity) else native.norm
    assert torch.equal(backbone.norm.weight, norm.weight)
    assert torch.equal(backbone.layers[-1].attn.proj.weight, native.blocks[-1].attn.proj.weight)
