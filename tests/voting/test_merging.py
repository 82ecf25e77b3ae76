import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.voting.merging import merge_unselected
from tests.voting import naive


@given(seed=st.integers(0, 1000), count=st.integers(0, 9))
def test_merging_equals_a_naive_loop(seed, count):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, 9, 4, generator=generator)
    scores = torch.randint(6, (2, 9), generator=generator).float()
    selected = torch.stack([torch.randperm(9, generator=generator)[:count] for _ in range(2)])
    merged = merge_unselected(tokens, scores, selected)
    expected = [
        [naive.merge(t.tolist(), s.tolist(), set(chosen.tolist()))]
        for t, s, chosen in zip(tokens, scores, selected, strict=True)
    ]
    torch.testing.assert_close(merged, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_nothing_left_to_merge_gives_zeros_not_nan():
    merged = merge_unselected(torch.ones(1, 3, 2), torch.ones(1, 3), torch.tensor([[0, 1, 2]]))
    assert torch.equal(merged, torch.zeros(1, 1, 2))


def test_the_merged_token_keeps_the_dtype_of_the_tokens():
    merged = merge_unselected(torch.ones(1, 3, 2, dtype=torch.bfloat16), torch.ones(1, 3), torch.tensor([[0]]))
    assert merged.dtype == torch.bfloat16


def test_negative_scores_of_a_learnt_kernel_count_as_nothing():
    tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    merged = merge_unselected(tokens, torch.tensor([[-1.0, 2.0, 5.0]]), torch.tensor([[2]]))
    torch.testing.assert_close(merged, torch.tensor([[[3.0]]]))
