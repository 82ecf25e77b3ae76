import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.voting.selection import TokenBudget, allocate, move_rates, rank_patches, take_tokens
from tests.voting import naive


@given(seed=st.integers(0, 10_000), count=st.integers(0, 15))
def test_selection_equals_a_naive_sort_with_ties(seed, count):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(4, (3, 15), generator=generator).float()
    mass = torch.randint(3, (3, 15), generator=generator).float()
    expected = [naive.select(s.tolist(), m.tolist(), count) for s, m in zip(scores, mass, strict=True)]
    assert rank_patches(scores, mass)[:, :count].tolist() == expected


def test_taken_tokens_are_those_at_the_positions():
    tokens = torch.arange(24.0).reshape(2, 4, 3)
    taken = take_tokens(tokens, torch.tensor([[3, 0], [1, 1]]))
    assert torch.equal(taken, torch.stack([tokens[0, [3, 0]], tokens[1, [1, 1]]]))


@given(
    rates=st.lists(st.floats(0, 1e3, allow_nan=False), min_size=1, max_size=12),
    total=st.integers(0, 200),
    limit=st.integers(1, 50),
)
def test_the_budget_sums_to_the_total_and_respects_the_limit(rates, total, limit):
    if total > limit * len(rates):
        with pytest.raises(ArgumentError, match=f"num_selected={total} exceeds"):
            allocate(rates, total=total, limit=limit)
        return
    counts = allocate(rates, total=total, limit=limit)
    assert sum(counts) == total
    assert all(0 <= count <= limit for count in counts)


def test_largest_remainder_by_hand():
    assert allocate([0.5, 0.3, 0.2], total=11, limit=100) == (6, 3, 2)  # 5.5, 3.3, 2.2
    assert allocate([1, 1, 1], total=8, limit=100) == (3, 3, 2)  # equal remainders: the earlier layer
    assert allocate([8, 1, 1], total=10, limit=4) == (4, 3, 3)  # what the full layer cannot take


@pytest.mark.parametrize("rates", [[1.0, float("nan")], [1.0, -0.1], [float("inf"), 1.0]])
def test_rates_that_mean_nothing_are_refused(rates):
    with pytest.raises(ArgumentError, match="rates must be finite and not negative"):
        allocate(rates, total=3, limit=5)


@given(picks=st.lists(st.integers(0, 50), min_size=3, max_size=3), by=st.sampled_from(["yield", "count"]))
def test_moved_rates_stay_a_distribution(picks, by):
    moved = move_rates([0.2, 0.3, 0.5], picks, [4, 0, 6], momentum=0.1, by=by)
    assert sum(moved) == pytest.approx(1)
    assert min(moved) >= 0


def test_picks_in_proportion_to_the_offer_leave_the_yield_of_uniform_rates_alone():
    rates = [0.25] * 4
    assert move_rates(rates, [12, 12, 12, 12], [6, 6, 6, 6], momentum=0.5, by="yield") == pytest.approx(rates)


def test_by_count_moves_by_the_share_of_picks():
    assert move_rates([0.5, 0.5], [30, 10], [5, 5], momentum=0.2, by="count") == pytest.approx([0.55, 0.45])


def test_a_layer_that_offered_nothing_keeps_its_rate():
    moved = move_rates([0.0, 0.6, 0.4], [0, 10, 10], [0, 6, 4], momentum=1.0, by="yield")
    assert moved == pytest.approx([0.0, 0.4, 0.6])


def test_no_picks_move_nothing():
    assert move_rates([0.3, 0.7], [0, 0], [3, 7], momentum=0.5, by="yield") == [0.3, 0.7]


def simulate(by, *, favour, updates=20_000, num_layers=11, total=126, picks=24):
    """Pick by chance among the offered tokens, those of layer 0 `favour` times as often."""
    generator = torch.Generator().manual_seed(0)
    rates = [1 / num_layers] * num_layers
    weights = torch.tensor([favour] + [1.0] * (num_layers - 1))
    for _ in range(updates):
        counts = allocate(rates, total=total, limit=1000)
        odds = weights * torch.tensor(counts)
        chosen = torch.multinomial(odds, picks, replacement=True, generator=generator)
        rates = move_rates(rates, torch.bincount(chosen, minlength=num_layers).tolist(), counts, momentum=1e-3, by=by)
    return allocate(rates, total=total, limit=1000)


@pytest.mark.slow
def test_the_raw_count_runs_away_and_the_yield_settles():
    assert simulate("count", favour=1.3)[0] > 80
    assert 12 <= simulate("yield", favour=1.3)[0] <= 17


def make_budget(**changes):
    settings = {"initial_rates": [1.0, 1.0, 2.0], "total": 12, "limit": 16, "momentum": 0.5, "by": "yield"} | changes
    return TokenBudget(**settings)


def test_the_budget_moves_towards_the_layer_with_the_higher_yield():
    budget = make_budget()
    assert budget.counts == [3, 3, 6]
    budget.update(torch.tensor([9, 3, 6]))
    assert budget.counts[0] > 3
    assert sum(budget.counts) == 12


def test_a_budget_that_is_off_does_not_move():
    budget = make_budget(by="off")
    budget.update(torch.tensor([9, 0, 0]))
    assert budget.counts == [3, 3, 6]


def test_the_budget_is_state_that_is_saved_and_copied():
    budget = make_budget()
    budget.update(torch.tensor([20, 0, 0]))
    loaded = make_budget()
    loaded.load_state_dict(budget.state_dict())
    assert loaded.counts == budget.counts == copy.deepcopy(budget).counts != make_budget().counts
    assert torch.equal(loaded.rates, budget.rates)
