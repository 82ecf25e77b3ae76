"""The votes of each head, kept on request: they are those behind the ballots, and asking changes nothing."""

import pytest
import torch

from finevote.voting.head import PlacedTokens, gather_forwarded
from tests.models import NARROW, tiny_model
from tests.test_keep_rate import CASES, deep_model


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_the_votes_of_all_heads_add_up_to_the_ballots(case, rate):
    model = deep_model(model__voting__keep_rate=rate, **CASES[case])
    votes = model(torch.randn(3, 3, *model.backbone.image_size), with_head_votes=True).votes
    assert votes.head_votes.dtype == torch.bool
    assert torch.equal(votes.head_votes.sum(2).float(), votes.ballots)
    assert (votes.head_votes.sum(3) == model.head.num_votes_per_head).all()


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_asking_for_them_changes_no_bit(case, rate):
    model = deep_model(model__voting__keep_rate=rate, **CASES[case])
    images = torch.randn(2, 3, *model.backbone.image_size)
    plain, asked = model(images), model(images, with_head_votes=True)
    assert torch.equal(plain.logits, asked.logits)
    assert torch.equal(plain.embedding, asked.embedding)
    for name in plain.votes._fields:
        if isinstance(getattr(plain.votes, name), torch.Tensor):
            assert torch.equal(getattr(plain.votes, name), getattr(asked.votes, name)), name


def test_nobody_keeps_them_unasked():
    model = tiny_model()
    assert model(torch.randn(2, 3, 32, 32)).votes.head_votes is None
    assert all(layer.vote.head_votes is None for layer in model.run_trunk(torch.randn(2, 3, 32, 32)).forwarded)


def test_they_carry_no_gradient():
    votes = tiny_model()(torch.randn(2, 3, 32, 32), with_head_votes=True).votes
    assert not votes.head_votes.requires_grad


def test_a_plain_backbone_has_none_to_keep():
    model = tiny_model(model__voting__enabled=False)
    assert model(torch.randn(2, 3, 32, 32), with_head_votes=True).votes is None


@pytest.mark.parametrize("case", ["registers", "summary token", "rotary", "merged"])
def test_the_stages_run_on_fewer_tokens_and_on_none(case):
    model = deep_model(**CASES[case]).eval()
    trunk = model.run_trunk(torch.randn(2, 3, *model.backbone.image_size))
    gathered = gather_forwarded(trunk.forwarded)
    for count in (0, 1, 3, model.head.budget.total):
        fewer = PlacedTokens(gathered.tokens[:, :count], gathered.patches[:, :count])
        told = model.head.classify(trunk.cls, fewer, num_selected=count)
        assert torch.isfinite(told.logits).all()
        assert told.second.positions.shape == (2, min(count, model.head.num_key_tokens))


@pytest.mark.parametrize("depth", [2, 3])
def test_the_head_on_what_the_trunk_gives_is_the_forward_pass(depth):
    model = tiny_model(model__backbone_args=NARROW | {"depth": depth})
    images = torch.randn(2, 3, 32, 32)
    trunk = model.run_trunk(images)
    output = model.head(trunk.cls, trunk.forwarded, grid=model.backbone.grid, noise=None)
    assert torch.equal(output.logits, model(images).logits)
