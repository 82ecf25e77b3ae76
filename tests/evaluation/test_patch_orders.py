import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.evaluation.patch_orders import order_by_votes, order_patches, random_orders
from finevote.types import Votes
from tests.models import tiny_model

small = st.lists(st.integers(0, 3), min_size=7, max_size=7)


@given(small, small)
def test_equals_are_ordered_by_the_next_map_and_then_by_the_lower_number(first, second):
    expected = sorted(range(7), key=lambda patch: (-first[patch], -second[patch], patch))
    found = order_patches(torch.tensor([first, second]).float(), torch.tensor([second, first]).float())
    assert found[0].tolist() == expected
    assert found[1].tolist() == sorted(range(7), key=lambda patch: (-second[patch], -first[patch], patch))


def test_final_votes_come_first_then_the_enhanced_ballots_of_all_layers_together():
    votes = Votes(
        grid=(1, 4),
        budget=(1, 1),
        ballots=torch.zeros(1, 2, 4),
        enhanced=torch.tensor([[[0.0, 5.0, 1.0, 3.0], [0.0, 0.0, 4.0, 3.0]]]),  # summed: 0, 5, 5, 6
        selected=torch.tensor([[0, 0]]),
        key_ballots=torch.tensor([[1.0, 0.0]]),
        key_positions=torch.tensor([[0]]),
        layer_picks=torch.tensor([1, 0]),
    )
    assert order_by_votes(votes).tolist() == [[0, 3, 1, 2]]


@pytest.mark.parametrize("part", ["key", "merge"])
def test_votes_of_a_model_are_a_permutation_for_each_image(part):
    model = tiny_model(**{f"model__voting__{part}": part == "merge"})
    with torch.inference_mode():
        order = order_by_votes(model(torch.randn(3, 3, 32, 32)).votes)
    assert order.sort(1).values.tolist() == [list(range(16))] * 3


def test_without_a_second_vote_there_is_no_order_by_votes():
    with torch.inference_mode():
        votes = tiny_model(model__voting__refine=False)(torch.randn(2, 3, 32, 32)).votes
    assert order_by_votes(votes) is None


def test_random_orders_belong_to_the_image_and_not_to_its_batch():
    together = random_orders(["a.jpg", "b.jpg", "ü.jpg"], 9, num_draws=2)
    assert together.shape == (2, 3, 9)
    assert torch.equal(random_orders(["b.jpg"], 9, num_draws=2)[:, 0], together[:, 1])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(random_orders(["a.jpg"], 9, num_draws=1, seed=1)[0, 0], together[0, 0])
    assert np.array_equal(together.sort(-1).values.numpy(), np.broadcast_to(np.arange(9), (2, 3, 9)))
