from itertools import permutations
from math import factorial

import numpy as np
import pytest

from finevote.errors import ArgumentError
from finevote.explanation.shapley import estimate_shapley


def game_of(num_players, *, seed=0):
    """A game in which every coalition has a worth of its own, drawn at random."""
    worths = np.random.default_rng(seed).normal(size=2**num_players)
    return lambda coalitions: worths[coalitions @ (2 ** np.arange(num_players))]


def exact_shapley(game, num_players):
    """The mean over all orders, one by one."""
    values = np.zeros(num_players)
    for order in permutations(range(num_players)):
        there = np.zeros((1, num_players), bool)
        before = game(there)[0]
        for player in order:
            there[0, player] = True
            after = game(there)[0]
            values[player] += (after - before) / factorial(num_players)
            before = after
    return values


@pytest.mark.parametrize("num_players", [1, 2, 5])
def test_many_orders_come_near_the_mean_over_all_of_them(num_players):
    game = game_of(num_players)
    found = estimate_shapley(game, num_players=num_players, num_permutations=6000, seed=1)
    np.testing.assert_allclose(found.values, exact_shapley(game, num_players), atol=0.06)


def test_the_standard_error_tells_how_far_the_estimates_lie_from_the_truth():
    game = game_of(5)
    truth = exact_shapley(game, 5)
    found = [estimate_shapley(game, num_players=5, num_permutations=40, seed=seed) for seed in range(300)]
    deviations = np.stack([some.values - truth for some in found])
    told = np.sqrt(np.mean([some.standard_errors**2 for some in found], axis=0))
    np.testing.assert_allclose(np.sqrt((deviations**2).mean(axis=0)), told, rtol=0.15)


@pytest.mark.parametrize("num_permutations", [4, 10])
def test_the_values_sum_to_what_all_players_add_together(num_permutations):
    game = game_of(7, seed=3)
    found = estimate_shapley(game, num_players=7, num_permutations=num_permutations, seed=0)
    assert found.values.sum() == pytest.approx(found.with_all - found.with_none, abs=1e-12)
    assert found.with_all == game(np.ones((1, 7), bool))[0]
    assert found.with_none == game(np.zeros((1, 7), bool))[0]


def test_a_game_that_adds_up_is_told_without_error():
    weights = np.array([1.0, -2.0, 0.5])
    found = estimate_shapley(lambda there: there @ weights, num_players=3, num_permutations=4, seed=0)
    np.testing.assert_allclose(found.values, weights)
    np.testing.assert_allclose(found.standard_errors, 0.0, atol=1e-12)


def test_the_game_is_asked_once_for_coalitions_that_differ():
    asked = []

    def game(coalitions):
        asked.append(coalitions)
        return coalitions.sum(axis=1).astype(float)

    estimate_shapley(game, num_players=3, num_permutations=50, seed=0)
    assert len(asked) == 1
    assert len(asked[0]) == len(np.unique(asked[0], axis=0)) <= 8


def test_a_seed_decides_the_orders():
    game = game_of(6)
    one, same, other = (
        estimate_shapley(game, num_players=6, num_permutations=4, seed=seed).values.tolist() for seed in (0, 0, 1)
    )
    assert one == same != other


@pytest.mark.parametrize("number", [0, 2, 5])
def test_orders_come_in_pairs(number):
    with pytest.raises(ArgumentError, match=f"num_permutations={number} must be an even number from 4"):
        estimate_shapley(game_of(2), num_players=2, num_permutations=number, seed=0)


def test_a_game_without_players_is_refused():
    with pytest.raises(ArgumentError, match="num_players=0 must be 1 or more"):
        estimate_shapley(game_of(2), num_players=0, num_permutations=4, seed=0)
