import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.errors import ArgumentError
from finevote.voting.ballots import cast_votes, count_ballots
from tests.voting import naive


def quantised_rows(seed, *, images=3, heads=4, patches=20, levels=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(levels, (images, heads, patches), generator=generator) / levels


@given(seed=st.integers(0, 10_000), num_votes=st.integers(1, 20))
def test_ballots_equal_a_naive_loop_even_with_many_ties(seed, num_votes):
    rows = quantised_rows(seed)
    expected = [naive.ballot(image.tolist(), num_votes) for image in rows]
    assert count_ballots(rows, num_votes=num_votes).tolist() == expected


@given(seed=st.integers(0, 10_000), num_votes=st.integers(1, 20))
def test_each_image_casts_heads_times_votes(seed, num_votes):
    ballots = count_ballots(quantised_rows(seed), num_votes=num_votes)
    assert (ballots.sum(1) == 4 * num_votes).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_counts_are_exact_whole_numbers_in_every_dtype(dtype):
    rows = torch.zeros(1, 300, 8, dtype=dtype)
    rows[:, :, 3] = 1
    ballots = count_ballots(rows, num_votes=1)  # 300 votes: more than bfloat16 can count one by one
    assert ballots.dtype == torch.float32
    assert ballots[0].tolist() == [0, 0, 0, 300, 0, 0, 0, 0]


def test_equal_attention_goes_to_the_lower_patch():
    votes = cast_votes(torch.ones(1, 1, 6), num_votes=2)
    assert votes[0, 0].tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("num_votes", [0, 7])
def test_more_votes_than_patches_are_refused(num_votes):
    with pytest.raises(ArgumentError, match=rf"num_votes_per_head={num_votes} must lie between 1 and the 6 patches"):
        cast_votes(torch.ones(1, 1, 6), num_votes=num_votes)
