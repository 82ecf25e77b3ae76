import copy

import numpy as np
import pytest
import torch

from finevote.backbones import rollout
from finevote.backbones.rollout import add_layer, attention_rollout, mean_attention
from finevote.backbones.timm_vit import TimmVit
from tests.backbones.families import FAMILIES, make_vit
from tests.backbones.test_timm_vit import WITHOUT_CLS, rope_of


def unfused_attention(vit, backbone, images):
    """Return what timm's own blocks compute without fused attention, (B, H, N, N) for each, caught by hooks."""
    seen, tokens = [], backbone.embed(images)
    mask = torch.zeros(tokens.shape[1], tokens.shape[1])
    if vit.cls_token is None:
        mask[:, 0] = -torch.inf  # nobody hears the summary token
    for index, block in enumerate(vit.blocks):
        block.attn.fused_attn, block.attn.num_prefix_tokens = False, backbone.num_prefix
        block.attn.attn_drop.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        tokens = block(tokens, **rope_of(vit, index), attn_mask=mask)
    return seen


def naive_rollout(matrices):
    """Multiply image by image and layer by layer in float64, with loops over tokens for what is renormalised."""
    num_images, _, num_tokens, _ = matrices[0].shape
    rolled = []
    for image in range(num_images):
        product = np.eye(num_tokens)
        for matrix in matrices:
            heads = matrix[image].double().numpy()
            mixed = sum(heads) / len(heads) + np.eye(num_tokens)
            for token in range(num_tokens):
                mixed[token] /= mixed[token].sum()
            product = mixed @ product
        rolled.append(product)
    return torch.from_numpy(np.stack(rolled))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_rollout_is_that_of_timm_s_unfused_attention(kind):
    vit = make_vit(kind, patches=(2, 5))
    backbone = TimmVit(copy.deepcopy(vit)).eval()
    images = torch.randn(2, 3, *backbone.image_size)
    with torch.no_grad():
        expected = naive_rollout(unfused_attention(vit, backbone, images))[:, 0, backbone.num_prefix :]
    found = attention_rollout(backbone, images)
    assert found.shape == (2, 10)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", WITHOUT_CLS)
def test_a_summary_token_hears_patches_through_every_layer(kind):
    backbone = TimmVit(make_vit(kind, patches=(2, 3))).eval()
    rolled = attention_rollout(backbone, torch.randn(1, 3, *backbone.image_size))
    assert (rolled > 0).all()
    assert rolled.sum() < 1  # some of it stays its own


def test_prefix_tokens_take_their_share():
    backbone = TimmVit(make_vit("dinov2, registers")).eval()
    rolled = attention_rollout(backbone, torch.randn(1, 3, *backbone.image_size))
    assert rolled.shape == (1, 9)
    assert 0 < rolled.sum() < 1


def test_layers_that_attend_to_themselves_alone_leave_every_token_its_own():
    identity = torch.eye(4).expand(2, -1, -1)
    torch.testing.assert_close(add_layer(add_layer(identity, identity), identity), identity)


def test_what_a_layer_hears_is_what_the_layers_before_it_passed_on():
    """CLS attends to the first patch in the second layer, which heard the second patch in the first layer."""
    first, second = torch.eye(3)[None].clone(), torch.eye(3)[None].clone()
    first[0, 1], second[0, 0] = torch.tensor([0.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])
    rolled = add_layer(add_layer(torch.eye(3)[None], first), second)
    torch.testing.assert_close(rolled[0, 0], torch.tensor([0.5, 0.25, 0.25]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_dtypes_are_computed_in_float32_also_under_autocast(dtype):
    queries, keys = torch.randn(2, 1, 3, 6, 8).to(dtype)
    exact = mean_attention(queries.float(), keys.float(), scale=0.35)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = mean_attention(queries, keys, scale=0.35)
    assert found.dtype == torch.float32
    assert torch.equal(found, exact)


def test_what_is_rolled_out_has_no_gradient():
    backbone = TimmVit(make_vit("plain")).eval()
    assert not attention_rollout(backbone, torch.randn(1, 3, *backbone.image_size)).requires_grad


def test_many_tokens_are_rolled_out_a_few_images_at_a_time(monkeypatch):
    backbone = TimmVit(make_vit("dinov2, registers")).eval()
    images = torch.randn(5, 3, *backbone.image_size)
    whole = attention_rollout(backbone, images)
    seen = []
    monkeypatch.setattr(rollout, "_NUM_ENTRIES", 2 * 14**2)  # CLS, four registers and nine patches
    monkeypatch.setattr(backbone.embedding, "forward", watched(backbone.embedding.forward, seen))
    torch.testing.assert_close(attention_rollout(backbone, images), whole)
    assert seen == [2, 2, 1]


def watched(forward, seen):
    def call(images):
        seen.append(len(images))
        return forward(images)

    return call
