from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from finevote.explanation.contrast import contrast_patches
from finevote.voting.head import PlacedTokens, gather_forwarded
from tests.models import FAMILIES, tiny_model

CASES = {
    "plain": {},
    "merged": {"model__voting__merge": True},
    "no refinement": {"model__voting__refine": False},
    "no key stage": {"model__voting__key": False},
    "no assist": {"model__voting__assist": False},
    "registers": FAMILIES["dinov2 with registers"],
    "rotary": FAMILIES["dinov3"],
    "summary token": FAMILIES["siglip2"],
    "rectangle": {"data__image_size": [16, 48], "data__resize": [20, 50]},
    "fewer tokens": {"model__voting__keep_rate": 0.6, "model__voting__keep_layers": [1]},
}


def small_model(**changes):
    """Six tokens are selected, so that all subsets of their patches can be gone through."""
    sizes = {"num_votes_per_head": 2, "num_selected": 6, "num_key_tokens": 2}
    model = tiny_model(**{f"model__voting__{name}": value for name, value in sizes.items()}, **changes)
    with torch.no_grad():
        model.head.classifier.weight.normal_()
    return model.double()


def scene(model):
    images = torch.randn(1, 3, *model.backbone.image_size, dtype=torch.float64)
    with torch.inference_mode():
        trunk = model.run_trunk(images)
        return trunk.cls, gather_forwarded(trunk.forwarded), model(images)


def contrast(model, cls, gathered, *, classes=(0, 1), **options):
    return contrast_patches(
        model.head, cls, gathered, classes=classes, class_names=("A", "B"), grid=model.backbone.grid, **options
    )


def exact_contributions(model, cls, gathered):
    """Shapley values by their definition as a sum over subsets, one forward of the head for each, without batches."""
    num_selected = model.head.budget.total
    patches = gathered.patches[0].tolist()
    players = sorted(set(patches[:num_selected]))

    def difference(present):
        kept = [t for t, patch in enumerate(patches) if t >= num_selected or patch in present]
        tokens = PlacedTokens(gathered.tokens[:, kept], gathered.patches[:, kept])
        count = sum(t < num_selected for t in kept)
        logits = model.head.classify(cls, tokens, num_selected=count).logits[0]
        return float(logits[0] - logits[1])

    values = np.zeros(model.backbone.num_patches)
    with torch.inference_mode():
        worth = {
            subset: difference(subset) for size in range(len(players) + 1) for subset in combinations(players, size)
        }
    for player in players:
        for subset, alone in worth.items():
            if player not in subset:
                joined = tuple(sorted((*subset, player)))
                weight = 1 / (len(players) * comb(len(players) - 1, len(subset)))
                values[player] += weight * (worth[joined] - alone)
    return values


@pytest.mark.parametrize("case", CASES)
def test_many_orders_come_near_the_sum_over_all_subsets(case):
    model = small_model(**CASES[case])
    cls, gathered, _ = scene(model)
    found = contrast(model, cls, gathered, num_permutations=600)
    expected = exact_contributions(model, cls, gathered)
    errors = found.standard_errors.ravel()
    assert (np.abs(found.contributions.ravel() - expected) <= 4 * errors + 1e-9).all()
    assert errors.max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize("case", CASES)
def test_contributions_sum_to_the_difference_with_all_tokens_less_that_with_none(case):
    model = small_model(**CASES[case])
    cls, gathered, output = scene(model)
    found = contrast(model, cls, gathered, num_permutations=4)
    assert found.contributions.sum() == pytest.approx(found.difference - found.difference_without, abs=1e-9)
    assert found.difference == pytest.approx(float(output.logits[0, 0] - output.logits[0, 1]), abs=1e-9)
    assert exact_contributions(model, cls, gathered).sum() == pytest.approx(
        found.difference - found.difference_without, abs=1e-9
    )


def test_only_patches_with_a_selected_token_contribute():
    model = small_model()
    cls, gathered, output = scene(model)
    found = contrast(model, cls, gathered)
    chosen = set(output.votes.selected[0].tolist())
    assert set(np.flatnonzero(found.contributions).tolist()) <= chosen
    assert set(np.flatnonzero(found.standard_errors).tolist()) <= chosen


def test_the_other_way_round_every_sign_is_turned():
    model = small_model()
    cls, gathered, _ = scene(model)
    one, other = (contrast(model, cls, gathered, classes=pair) for pair in ((0, 3), (3, 0)))
    np.testing.assert_allclose(one.contributions, -other.contributions, atol=1e-12)


def test_the_same_seed_gives_the_same_bits():
    model = small_model().float()
    trunk = model.run_trunk(torch.randn(1, 3, 32, 32))
    gathered = gather_forwarded(trunk.forwarded)
    one, same, other = (contrast(model, trunk.cls, gathered, seed=seed).contributions for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
