from hypothesis import given
from hypothesis import strategies as st

from finevote.data.seeds import combine_seeds


def test_the_seed_is_the_same_on_every_machine():
    assert combine_seeds(0, 1, 2) == 1772749440416956875


@given(st.lists(st.integers(), min_size=1, max_size=4))
def test_any_integers_give_a_seed_that_generators_take(parts):
    assert 0 <= combine_seeds(*parts) < 2**63


def test_near_inputs_give_far_seeds():
    seeds = {combine_seeds(seed, epoch, index) for seed in range(-5, 5) for epoch in range(10) for index in range(10)}
    assert len(seeds) == 1000
