import copy

import pytest
import timm
import torch

from finevote.errors import ArgumentError, ConfigError
from tests.models import FAMILIES, tiny_config, tiny_model
from tests.voting import naive

VARIANTS = {
    "full": {},
    "merged": {"model__voting__merge": True},
    "no refinement": {"model__voting__refine": False},
    "no key block": {"model__voting__key": False},
    "no assist": {"model__voting__assist": False},
    "unsmoothed": {"model__voting__smoothing": "none"},
    "single-scale": {"model__voting__dilations": [1]},
    "learnable": {"model__voting__smoothing": "learnable"},
    "random blocks": {"model__voting__block_init": "random"},
    "registers": {
        "model__backbone_args": {"embed_dim": 24, "depth": 3, "num_heads": 3, "patch_size": 8, "reg_tokens": 4}
    },
    "rectangle": {"data__image_size": [32, 48]},
    "fewer patches": {"model__voting__keep_rate": 0.5, "training__keep_rate": 0.5},
    "plain": {"model__voting__enabled": False},
    **FAMILIES,
    "dinov3, fewer patches, merged": FAMILIES["dinov3"]
    | {"model__voting__keep_rate": 0.5, "training__keep_rate": 0.4, "model__voting__merge": True},
    **{
        f"{family}, merged, rectangle": FAMILIES[family] | {"model__voting__merge": True, "data__image_size": [32, 48]}
        for family in ("dinov3", "siglip2")
    },
    **{f"{family}, plain": FAMILIES[family] | {"model__voting__enabled": False} for family in ("eva02", "siglip2")},
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    model = tiny_model(**VARIANTS[request.param])
    return model, torch.randn(3, 3, *model.backbone.image_size)


def test_every_variant_gives_one_kind_of_output(variant):
    model, images = variant
    output = model(images)
    assert output.logits.shape == (3, 5)
    assert output.embedding.shape == (3, 24)
    if output.votes is not None:
        assert output.votes.budget == model.budget
        assert sum(output.votes.budget) == 10
        assert output.votes.ballots.shape == (3, 2, model.backbone.num_patches)


def test_every_parameter_gets_a_gradient(variant):
    model, images = variant
    output = model.train()(images)
    logits = output.logits if output.complement is None else output.logits + output.complement
    logits.square().sum().backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent
    new = ("head.refine.", "head.key.", "head.smoothing.kernels")
    unmoved = [
        name for name, parameter in model.named_parameters() if name.startswith(new) and not parameter.grad.any()
    ]
    assert not unmoved


def test_saving_and_loading_gives_bit_equal_outputs(variant):
    model, images = variant
    model.update_budget(torch.tensor([7, 1]))
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(images).logits, other(images).logits)


def test_an_image_s_output_does_not_depend_on_its_batch(variant):
    model, images = variant
    alone = model(images[1:2])
    torch.testing.assert_close(alone.logits, model(images).logits[1:2], rtol=1e-4, atol=1e-5)


def test_all_off_is_timm_s_model_with_a_linear_classifier():
    model = tiny_model(model__voting__enabled=False)
    vit = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=5
    ).eval()
    state = vit.state_dict()
    embedding = {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    renamed = {
        **{f"backbone.embedding.{key}": state[key] for key in embedding},
        **{key.replace("blocks.", "backbone.layers."): value for key, value in state.items() if "blocks." in key},
        **{f"head.norm.{kind}": state[f"norm.{kind}"] for kind in ("weight", "bias")},
        **{f"head.classifier.{kind}": state[f"head.{kind}"] for kind in ("weight", "bias")},
    }
    model.load_state_dict(renamed, strict=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(images).logits, vit(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{}, {"data__image_size": [24, 48]}], ids=["square", "rectangle"])
def test_the_whole_method_equals_loops_over_images(changes):
    """Ballots, smoothing, selection, merging, refinement, second vote and logits, image by image, without fusion."""
    model = tiny_model(model__voting__merge=True, **changes)
    torch.manual_seed(3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    images = torch.randn(4, 3, *model.backbone.image_size)
    output, head = model(images), model.head
    picks = [0, 0]
    for image in range(4):
        tokens = model.backbone.embed(images[image : image + 1])
        cls_tokens, chosen, merged, ballots = None, [], [], []
        for index, layer in enumerate(model.backbone.layers):
            rows = unfused_rows(layer, tokens)[:, 1:]
            tokens = layer(tokens, num_prefix=1, with_rows=False).tokens
            ballots.append(naive.ballot(rows.tolist(), 4))
            scores = naive.smooth(ballots[-1], model.backbone.grid, (1, 2, 4))
            selected = naive.select(scores, rows.mean(0).tolist(), model.budget[index])
            chosen += [(index, patch, tokens[0, 1 + patch]) for patch in selected]
            merged.append(torch.tensor(naive.merge(tokens[0, 1:].tolist(), scores, set(selected))))
        cls_tokens = tokens[0, 0]
        assert output.votes.ballots[image].tolist() == ballots
        assert output.votes.selected[image].tolist() == [patch for _, patch, _ in chosen]
        sequence = torch.stack([cls_tokens, *(token for _, _, token in chosen), *merged])[None]
        rows = unfused_rows(head.refine.layer, sequence)[:, 1 : 1 + len(chosen)]
        refined = head.refine.norm(head.refine.layer(sequence, num_prefix=1, with_rows=False).tokens)[0]
        keys = naive.select(naive.ballot(rows.tolist(), 4), rows.mean(0).tolist(), 4)
        assert output.votes.key_positions[image].tolist() == keys
        complement = head.classifier(refined[0])
        sequence = torch.stack([cls_tokens, *(refined[1 + key] for key in keys)])[None]
        part = head.key.norm(head.key.layer(sequence, num_prefix=1, with_rows=False).tokens)[0, 0]
        logits = head.classifier(part) + complement.softmax(0) * head.classifier.weight.sum(1)
        torch.testing.assert_close(output.complement[image], complement, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(output.logits[image], logits, rtol=1e-4, atol=1e-5)
        for key in keys:
            picks[chosen[key][0]] += 1
    assert output.votes.layer_picks.tolist() == picks


def unfused_rows(layer, tokens):
    """CLS attention (H, N) of tokens (1, N, D), from the whole matrix."""
    qkv = layer.attn.qkv(layer.norm1(tokens)).reshape(1, tokens.shape[1], 3, 3, 8).permute(2, 0, 3, 1, 4)
    return (qkv[0] @ qkv[1].transpose(-2, -1) * 8**-0.5).softmax(-1)[0, :, 0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_the_model_runs_in_any_float_dtype(dtype):
    model = tiny_model().to(dtype)
    output = model(torch.randn(2, 3, 32, 32, dtype=dtype))
    assert output.logits.dtype == dtype
    assert (output.votes.ballots == output.votes.ballots.round()).all()


@pytest.mark.parametrize("smoothing", ["fixed", "learnable"])
def test_the_model_trains_under_autocast(smoothing):
    model = tiny_model(model__voting__smoothing=smoothing, model__voting__merge=True).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(torch.randn(2, 3, 32, 32))
    output.logits.float().square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.head.key.parameters())
    assert (output.votes.ballots.sum(2) == 3 * 4).all()


def test_learnable_kernels_hear_of_the_refinement_stage():
    model = tiny_model(model__voting__smoothing="learnable")
    model(torch.randn(4, 3, 32, 32)).complement[:, 0].sum().backward()
    assert model.head.smoothing.kernels.grad.abs().max() > 1e-5  # gates that scaled tokens heard 5e-9


def test_the_final_votes_lie_on_the_patches_that_were_selected():
    votes = tiny_model()(torch.randn(2, 3, 32, 32)).votes
    final = votes.per_patch()
    assert final.sum(1).tolist() == votes.key_ballots.sum(1).tolist() == [3 * 4, 3 * 4]
    for image in range(2):
        assert set(final[image].nonzero().flatten().tolist()) <= set(votes.selected[image].tolist())


def test_layer_picks_count_every_key_token_once():
    votes = tiny_model()(torch.randn(6, 3, 32, 32)).votes
    assert votes.layer_picks.sum() == 6 * 4


def test_the_budget_changes_predictions_and_is_saved():
    model = tiny_model(model__voting__dynamic_momentum=0.9)
    model.update_budget(torch.tensor([40, 1]))
    assert model.budget != (5, 5)
    assert "head.budget.rates" in model.state_dict()


def test_depths_count_from_the_embedding_to_the_last_trunk_block():
    model = tiny_model()
    depths = {model.depth_of(name) for name, _ in model.named_parameters()}
    assert depths == {0, 1, 2, None}
    assert model.depth_of("backbone.embedding.pos_embed") == 0
    assert model.depth_of("head.key.layer.norm1.weight") is None


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_new_blocks_start_as_asked(init):
    model = tiny_model(model__voting__block_init=init)
    refine, key = model.head.refine.layer.attn.qkv.weight, model.head.key.layer.attn.qkv.weight
    assert torch.equal(refine, key) == (init == "pretrained")


def test_building_does_not_touch_the_global_generator_and_follows_the_seed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second, other = tiny_model(), tiny_model(), tiny_model(training__seed=9)
    assert torch.equal(before, torch.get_rng_state())
    name = "head.classifier.weight"
    assert torch.equal(first.state_dict()[name], second.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__voting__num_votes_per_head": 17}, r"num_votes_per_head=17 exceeds 16 patches \(4 x 4\)"),
        ({"model__voting__num_selected": 33}, r"num_selected=33 exceeds the 32 tokens of 2 layers x 16 patches"),
        ({"model__voting__initial_rates": [1, 2, 3]}, "initial_rates has 3 numbers for 2 voting layers"),
        (
            {"model__backbone_args": {"depth": 1, "embed_dim": 24, "num_heads": 3, "patch_size": 8}},
            "has one block, voting needs two or more",
        ),
    ],
)
def test_votes_that_the_image_cannot_hold_are_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        tiny_model(**changes)


def test_a_head_that_ignores_its_votes_is_refused():
    with pytest.raises(ConfigError, match="has neither refine nor key"):
        tiny_config(model__voting__refine=False, model__voting__key=False)


def test_rounding_the_image_size_is_said(caplog):
    model = tiny_model(data__image_size=30, data__resize=40)
    assert model.backbone.image_size == (32, 32)
    assert "image size (30, 30) px is rounded to (32, 32)" in caplog.text
