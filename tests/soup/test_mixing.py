"""Averages against a plain mean of tensors, and the greedy choice against looking at every step by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.soup.mixing import average, choose_greedily
from tests.models import tiny_model

ACCURACIES = st.lists(st.integers(0, 100).map(lambda share: share / 100), min_size=1, max_size=5)


def states(number, **changes):
    return [tiny_model(training__seed=seed, **changes).state_dict() for seed in range(number)]


def test_an_average_is_the_plain_mean_of_every_tensor():
    ours = states(3)
    found = average(ours)
    assert found.keys() == ours[0].keys()
    for name, tensor in found.items():
        expected = np.mean([state[name].numpy().astype(np.longdouble) for state in ours], axis=0)
        np.testing.assert_allclose(tensor.numpy(), expected.astype(np.float64), rtol=6e-8, atol=1e-9)
        assert tensor.dtype == ours[0][name].dtype


def test_equal_weights_stay_as_they_are_to_the_bit():
    (state,) = states(1)
    assert all(torch.equal(tensor, state[name]) for name, tensor in average([state] * 7).items())


def test_what_is_averaged_is_left_as_it_was():
    ours = states(2)
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in ours]
    average(ours)
    assert all(
        torch.equal(tensor, old[name])
        for state, old in zip(ours, before, strict=True)
        for name, tensor in state.items()
    )


def test_half_precision_is_summed_in_double():
    values = torch.tensor([2048.0, 1.0, 1.0, 1.0], dtype=torch.float16)
    found = average([{"weight": value[None]} for value in values])
    assert found["weight"].item() == torch.tensor(values.double().mean().item(), dtype=torch.float16).item()


def test_the_rates_of_a_budget_are_averaged_and_its_counts_follow():
    first, second = tiny_model(), tiny_model()
    first.update_budget(torch.tensor([8, 1, 1][: len(first.budget)]))
    for _ in range(200):
        second.update_budget(torch.tensor([1, 8, 1][: len(second.budget)]))
    rates = [model.head.budget.rates.clone() for model in (first, second)]
    mixed = tiny_model()
    mixed.load_state_dict(average([first.state_dict(), second.state_dict()]))
    torch.testing.assert_close(mixed.head.budget.rates, torch.stack(rates).mean(0))
    assert sum(mixed.budget) == sum(first.budget)
    assert mixed.budget != second.budget


def test_whole_numbers_that_agree_are_kept_and_others_refused():
    first, second = {"steps": torch.tensor(3)}, {"steps": torch.tensor(4)}
    assert average([first, first])["steps"].item() == 3
    with pytest.raises(ArgumentError, match="model 2 has other whole numbers than the first in steps"):
        average([first, second])


def test_states_of_different_models_are_refused():
    with pytest.raises(ArgumentError, match=r"model 2 differs from the first in 2 tensors \(head.classifier.bias is"):
        average([tiny_model().state_dict(), tiny_model(num_classes=6).state_dict()])


def test_nothing_cannot_be_averaged():
    with pytest.raises(ArgumentError, match="nothing to average"):
        average([])


@given(ACCURACIES, st.integers(0, 2**32 - 1))
def test_a_greedy_soup_is_never_less_accurate_than_the_best_ingredient(accuracies, seed):
    generator, known = np.random.default_rng(seed), {}

    def accuracy_of(chosen):
        return known.setdefault(chosen, float(generator.integers(0, 101)) / 100)

    chosen = choose_greedily(accuracies, accuracy_of)
    reached = known[chosen] if len(chosen) > 1 else accuracies[chosen[0]]
    assert reached >= max(accuracies)
    assert int(np.argmax(accuracies)) in chosen


def test_the_next_best_joins_where_accuracy_does_not_fall():
    said = {(1, 2): 0.9, (0, 1, 2): 0.89, (1, 2, 3): 0.91}
    tried = []

    def accuracy_of(chosen):
        tried.append(chosen)
        return said[chosen]

    assert choose_greedily([0.8, 0.9, 0.85, 0.7], accuracy_of) == (1, 2, 3)
    assert tried == [(1, 2), (0, 1, 2), (1, 2, 3)]


def test_there_must_be_something_to_choose_from():
    with pytest.raises(ArgumentError, match="nothing to choose from"):
        choose_greedily([], sum)
