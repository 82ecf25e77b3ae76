import pytest
import torch
from torch import nn

from finevote.training.ema import WeightAverage
from finevote.voting.selection import TokenBudget


def make_model() -> nn.Module:
    model = nn.Linear(2, 2, bias=False)
    model.register_buffer("count", torch.zeros((), dtype=torch.int64))
    return model


def test_updates_follow_the_formula_with_its_warm_start():
    model = make_model()
    average = WeightAverage(model, decay=0.3)
    expected = model.weight.detach().clone()
    for n in range(1, 6):
        with torch.no_grad():
            model.weight.add_(1.0)
        average.update(model)
        keep = min(0.3, (1 + n) / (10 + n))
        expected = keep * expected + (1 - keep) * model.weight.detach()
        torch.testing.assert_close(average.model.weight, expected)


def test_buffers_are_the_newest_ones():
    model = make_model()
    average = WeightAverage(model, decay=0.99)
    model.count.fill_(7)
    average.update(model)
    assert average.model.count == 7


@pytest.mark.parametrize("decay", [0.1, 0.9999])
def test_weights_that_never_change_keep_their_bits(decay):
    model = make_model()
    average = WeightAverage(model, decay=decay)
    for _ in range(20):
        average.update(model)
    assert torch.equal(average.model.weight, model.weight)


def test_the_average_takes_no_gradient_and_leaves_the_model_alone():
    model = make_model()
    average = WeightAverage(model, decay=0.5)
    assert not average.model.weight.requires_grad
    assert model.weight.requires_grad
    assert model.training
    assert not average.model.training


def test_a_saved_average_goes_on_where_it_was():
    model = make_model()
    first, second = WeightAverage(model, decay=0.9), WeightAverage(make_model(), decay=0.9)
    first.update(model)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        model.weight.add_(1.0)
    first.update(model)
    second.update(model)
    assert torch.equal(first.model.weight, second.model.weight)


def test_state_that_follows_from_buffers_follows_here_too():
    budget = TokenBudget(initial_rates=[1, 1], total=10, limit=10, momentum=1.0, by="count")
    average = WeightAverage(budget, decay=0.99)
    budget.update(torch.tensor([9, 1]))
    average.update(budget)
    assert average.model.counts == budget.counts == [9, 1]
