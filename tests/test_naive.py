"""The classifier against the naive oracle of the benchmarks, on weights and images drawn anew each time."""

import copy

import pytest
import torch
from benchmarks.naive import NaiveClassifier
from hypothesis import given, settings
from hypothesis import strategies as st

from finevote.errors import UnsupportedModelError
from tests.models import FAMILIES, tiny_model

SETTINGS = {
    "defaults": {},
    "rectangular": {"data__image_size": [24, 48], "data__resize": [30, 60]},
    "registers": FAMILIES["dinov2 with registers"],
    "single scale": {"model__voting__dilations": [1]},
    "no smoothing": {"model__voting__smoothing": "none"},
    "learnable smoothing": {"model__voting__smoothing": "learnable"},
    "merged": {"model__voting__merge": True},
    "learnable and merged": {"model__voting__smoothing": "learnable", "model__voting__merge": True},
    "no key": {"model__voting__key": False},
    "no refinement": {"model__voting__refine": False},
    "no refinement, merged": {"model__voting__refine": False, "model__voting__merge": True},
    "no assist": {"model__voting__assist": False},
    "uneven budget": {"model__voting__initial_rates": [1, 7]},
    "one vote": {"model__voting__num_votes_per_head": 1},
    "all votes": {"model__voting__num_votes_per_head": 16},
    "convolutional stem": {
        "model__backbone": "compact_vit",
        "model__backbone_args": {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4},
    },
}
each_setting = pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)


def draw(changes, seed):
    """Return a model with weights far from their start, in float64, and images (3, 3, rows, columns)."""
    model = tiny_model(**changes).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        # Eighths, so that smoothed counts stay exact and the order of a sum decides no tie.
        noise = torch.randint(-1, 2, parameter.shape, generator=generator) / 8
        parameter.data += noise
    images = torch.randn(3, 3, *model.backbone.image_size, generator=generator, dtype=torch.float64)
    return model, images


@each_setting
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31 - 1))
def test_votes_and_picks_are_those_of_the_oracle_and_logits_agree_in_float64(changes, seed):
    model, images = draw(changes, seed)
    with torch.no_grad():
        output, oracle = model(images), NaiveClassifier(model)(images)
    assert torch.equal(output.votes.ballots, oracle.ballots)
    assert torch.equal(output.votes.selected, oracle.selected)
    assert torch.equal(output.votes.key_positions, oracle.key_positions)
    torch.testing.assert_close(output.logits, oracle.logits, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(output.embedding, oracle.embedding, rtol=1e-10, atol=1e-10)
    assert (output.complement is None) == (oracle.complement is None)
    if output.complement is not None:
        torch.testing.assert_close(output.complement, oracle.complement, rtol=1e-10, atol=1e-10)


@each_setting
def test_logits_in_float32_are_those_of_the_oracle_in_float64(changes):
    exact, images = draw(changes, seed=0)
    model = copy.deepcopy(exact).float()
    with torch.no_grad():
        output, oracle = model(images.float()), NaiveClassifier(exact)(images)
    assert torch.equal(output.votes.selected, oracle.selected)
    error = (output.logits.double() - oracle.logits).abs().max() / oracle.logits.abs().max()
    assert error < 1e-6


def test_gradients_are_those_of_the_oracle():
    model, images = draw({}, seed=0)
    gradients = []
    for classifier in (model, NaiveClassifier(model)):
        output = classifier(images)
        loss = output.logits.square().sum() + output.complement.square().sum() + output.embedding.sum()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (FAMILIES["dinov3"], "rotary positions"),
        (FAMILIES["siglip2"], "a summary token"),
        ({"model__drop_path": 0.1}, "drop-path"),
        ({"model__dropout": 0.1}, "dropout"),
        ({"model__voting__keep_rate": 0.5}, "keep_rate below 1"),
        ({"model__voting__enabled": False}, "needs a voting head"),
    ],
)
def test_what_the_oracle_does_not_do_is_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModelError, match=named):
        NaiveClassifier(tiny_model(**changes))
