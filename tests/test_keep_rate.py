"""Fewer tokens: the reduced forward against loops over images, and what must not change."""

import math

import pytest
import torch

from finevote.backbones.projection import join_heads, project
from finevote.backbones.rotary import rotate
from finevote.errors import ArgumentError, ConfigError
from finevote.noise import Noise
from tests.models import FAMILIES, NARROW, tiny_config, tiny_model
from tests.voting import naive

DEEP = NARROW | {"depth": 5}  # four voting layers, of which the first three may reduce
CASES = {
    "everywhere": {},
    "one layer": {"model__voting__keep_layers": [2]},
    "merged": {"model__voting__merge": True},
    "learnable": {"model__voting__smoothing": "learnable"},
    "unsmoothed": {"model__voting__smoothing": "none"},
    "rectangle": {"data__image_size": [32, 64]},
    "registers": {"model__backbone_args": DEEP | {"reg_tokens": 4}},
    "rotary": {"model__backbone": FAMILIES["dinov3"]["model__backbone"]},
    "learnt rotations": {"model__backbone": FAMILIES["learnt rotations"]["model__backbone"]},
    "summary token": {"model__backbone": FAMILIES["siglip2"]["model__backbone"]},
}


def deep_model(**changes):
    return tiny_model(**{"data__image_size": 48, "data__resize": 72, "model__backbone_args": DEEP, **changes})


def scrambled(**changes):
    """A float64 model whose every weight is drawn, so that no two tokens are alike."""
    model = deep_model(**changes).double()
    torch.manual_seed(5)
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for parameter in [*model.head.refine.parameters(), *model.head.key.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("rate", [0.8, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_fewer_tokens_equal_loops_over_images(case, rate):
    model = scrambled(model__voting__keep_rate=rate, **CASES[case])
    images = torch.randn(3, 3, *model.backbone.image_size, dtype=torch.float64)
    with torch.no_grad():
        output = model(images)
        for image in range(3):
            ballots, selected, keys, logits = reduced_forward(model, images[image], rate)
            assert output.votes.ballots[image].tolist() == ballots
            assert output.votes.selected[image].tolist() == selected
            assert output.votes.key_positions[image].tolist() == keys
            torch.testing.assert_close(output.logits[image], logits, rtol=1e-10, atol=1e-10)


def reduced_forward(model, image, rate):
    """Ballots, selected patches, key positions and logits of one image, with whole attention matrices and lists."""
    head, backbone, num_votes = model.head, model.backbone, model.head.num_votes_per_head
    num_prefix, num_patches = backbone.num_prefix, backbone.num_patches
    tokens = list(backbone.embed(image[None])[0])
    prefix, patches = tokens[:num_prefix], dict(enumerate(tokens[num_prefix:]))
    merged, weight = [], 0.0
    all_ballots, chosen, rests = [], [], []
    for index, layer in enumerate(backbone.layers):
        numbers = [*[-1] * num_prefix, *patches, *[-1] * len(merged)]
        tokens, rows = whole_block(layer, [*prefix, *patches.values(), *merged], numbers)
        prefix, after = tokens[:num_prefix], tokens[num_prefix:]
        rows = rows[:, num_prefix : num_prefix + len(patches)].tolist()
        patches, merged = dict(zip(patches, after, strict=False)), after[len(patches) :]
        ballots = [0] * num_patches
        for patch, count in zip(patches, naive.ballot(rows, num_votes), strict=True):
            ballots[patch] = count
        smoothing = head.smoothing
        scores = naive.smooth(ballots, backbone.grid, smoothing.dilations) if smoothing else ballots
        mass = dict(zip(patches, (sum(column) for column in zip(*rows, strict=True)), strict=True))
        order = sorted(patches, key=lambda patch: (-scores[patch], -mass[patch], patch))
        best = order[: model.budget[index]]
        all_ballots.append(ballots)
        chosen += [(patch, patches[patch]) for patch in best]
        rests.append(weighted_mean([(scores[p], token) for p, token in patches.items() if p not in best], 1e-6))
        if index in head.reduction.layers:
            num_kept = max(math.ceil(rate * len(patches)), num_votes)
            leaving = [(scores[patch] + 1e-6, patches[patch]) for patch in order[num_kept:]]
            pool = [*leaving, *((weight, token) for token in merged)]
            merged, weight = [weighted_mean(pool, 0.0)], sum(share for share, _ in pool)
            patches = {patch: token for patch, token in patches.items() if patch in order[:num_kept]}
    cls, numbers = prefix[0], [-1, *(patch for patch, _ in chosen)]
    extra = rests if head.merge else []
    sequence = [cls, *(token for _, token in chosen), *extra]
    refined, rows = whole_block(head.refine.layer, sequence, [*numbers, *[-1] * len(extra)])
    rows = rows[:, 1 : len(numbers)]
    keys = naive.select(naive.ballot(rows.tolist(), num_votes), rows.mean(0).tolist(), head.num_key_tokens)
    refined = [head.refine.norm(token) for token in refined]
    complement = head.classifier(refined[0])
    parts, _ = whole_block(
        head.key.layer, [cls, *(refined[1 + key] for key in keys)], [-1, *(numbers[1 + k] for k in keys)]
    )
    assist = complement.softmax(0) * head.classifier.weight.sum(1)
    logits = head.classifier(head.key.norm(parts[0])) + assist
    return all_ballots, [patch for patch, _ in chosen], keys, logits


def weighted_mean(pool, epsilon):
    return sum(weight * token for weight, token in pool) / (sum(weight for weight, _ in pool) + epsilon)


def whole_block(layer, tokens, numbers):
    """Return a block's tokens and its CLS rows (H, N) by the whole attention matrix."""
    tokens = torch.stack(tokens)[None]
    normed = layer.norm1(tokens)
    queries, keys, values = project(layer.attn, normed)
    if layer.rotation is not None:
        turns = layer.rotation()[:, [1 + number for number in numbers]].double()
        queries, keys = (rotate(some, turns, halves=layer.attn.rotate_half) for some in (queries, keys))
    scores = queries @ keys.mT * layer.attn.scale
    if not layer.cls_is_key:
        scores[..., 0] = float("-inf")
    attention = scores.softmax(-1)
    tokens = tokens + layer.ls1(join_heads(layer.attn, normed, attention @ values))
    return list((tokens + layer.ls2(layer.mlp(layer.norm2(tokens))))[0]), attention[0, :, 0]


def test_by_default_patches_leave_at_one_two_and_three_quarters_of_the_depth():
    model = tiny_model(model__backbone_args=NARROW | {"depth": 12})
    assert model.head.reduction.layers == (2, 5, 8)  # after blocks 3, 6 and 9


@pytest.mark.parametrize("case", CASES)
def test_a_keep_rate_of_one_changes_no_bit(case):
    model = deep_model(**CASES[case])
    images = torch.randn(2, 3, *model.backbone.image_size)
    exact = model(images).logits
    model.head.reduction.layers = ()
    assert torch.equal(model(images).logits, exact)


def test_no_fewer_patches_are_left_than_votes_and_budget_need():
    model = deep_model(model__voting__keep_rate=0.01)
    votes = model(torch.randn(2, 3, 48, 48)).votes
    assert (votes.ballots.sum(2) == 3 * 4).all()
    assert (votes.ballots[:, 1:] > 0).sum(2).max() <= 4  # of the four that are left each head chooses all
    model.head.budget.counts = [1, 1, 7, 1]
    votes = model(torch.randn(2, 3, 48, 48)).votes
    assert votes.budget == (1, 1, 7, 1)
    assert all(len(set(image[2:9])) == 7 for image in votes.selected.tolist())


def test_patches_that_have_left_are_never_chosen_again():
    model = deep_model(model__voting__keep_rate=0.6, model__voting__keep_layers=[1])
    votes = model(torch.randn(4, 3, 48, 48)).votes
    for image in range(4):
        later = {patch for row in votes.ballots[image, 1:] for patch in row.nonzero().flatten().tolist()}
        later |= set(votes.selected[image, votes.budget[0] :].tolist())
        assert len(later) <= math.ceil(0.6 * 36)


def test_training_has_a_rate_of_its_own():
    trained = deep_model(training__keep_rate=0.5).train()
    used = deep_model(model__voting__keep_rate=0.5)
    images = torch.randn(2, 3, 48, 48)
    reduced = used(images).logits
    assert torch.equal(trained(images, Noise(0, 0, 2)).logits, reduced)
    assert not torch.equal(trained.eval()(images).logits, reduced)


def test_the_rate_can_be_set_on_a_finished_model():
    model, images = deep_model(), torch.randn(2, 3, 48, 48)
    model.set_keep_rate(0.5)
    assert model.keep_rate == 0.5
    assert torch.equal(model(images).logits, deep_model(model__voting__keep_rate=0.5)(images).logits)


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.01, math.nan])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ArgumentError, match="must be above 0 and at most 1"):
        deep_model().set_keep_rate(rate)


def test_a_plain_backbone_has_no_votes_to_keep_by():
    with pytest.raises(ConfigError, match=r"model.voting.keep_rate=0.5 ranks patches by votes.*enabled=false"):
        tiny_config(model__voting__enabled=False, model__voting__keep_rate=0.5)
    with pytest.raises(ConfigError, match=r"training.keep_rate=0.5 ranks patches by votes"):
        tiny_config(model__voting__enabled=False, training__keep_rate=0.5)
    plain = tiny_model(model__voting__enabled=False)
    plain.set_keep_rate(1.0)
    with pytest.raises(ArgumentError, match=r"keep_rate=0.5 needs votes, and the plain backbone has none"):
        plain.set_keep_rate(0.5)


def test_layers_that_cannot_reduce_are_refused():
    with pytest.raises(ArgumentError, match=r"names block 4, but patches can leave after block 1 to 3 of 4 voting"):
        deep_model(model__voting__keep_layers=[1, 4])
    with pytest.raises(ArgumentError, match="needs a trunk layer after which patches leave"):
        tiny_model(model__backbone_args=NARROW | {"depth": 2}, model__voting__keep_rate=0.5)
