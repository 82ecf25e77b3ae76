import pytest
import torch

from finevote.types import LayerVote
from finevote.voting.keeping import TokenReduction, keep_most_voted


def vote_of(scores, ranking):
    scores = torch.tensor([scores])
    nobody = torch.empty(1, 0, dtype=torch.int64)
    return LayerVote(scores, scores, nobody, scores=scores, ranking=torch.tensor([ranking]))


def test_the_rest_becomes_one_token_weighted_by_votes():
    tokens = torch.tensor([[[9.0], [1.0], [2.0], [5.0], [3.0]]])  # CLS and four patches
    left, present = keep_most_voted(tokens, vote_of([1.0, 3.0, 7.0, 4.0], [2, 3, 1, 0]), None, num_kept=2, num_prefix=1)
    torch.testing.assert_close(left, torch.tensor([[[9.0], [5.0], [3.0], [(1 * 1 + 3 * 2) / 4]]]))
    assert present.numbers().tolist() == [[2, 3, -1]]


def test_an_earlier_merged_token_counts_for_all_that_went_into_it():
    tokens = torch.tensor([[[9.0], [1.0], [2.0], [5.0], [3.0]]])
    first = vote_of([1.0, 3.0, 7.0, 4.0], [2, 3, 1, 0])
    left, present = keep_most_voted(tokens, first, None, num_kept=2, num_prefix=1)
    second = vote_of([2.0, 6.0], [1, 0])
    left, present = keep_most_voted(left, second, present, num_kept=1, num_prefix=1)
    assert present.numbers().tolist() == [[3, -1]]
    torch.testing.assert_close(left, torch.tensor([[[9.0], [3.0], [(1 * 1 + 3 * 2 + 2 * 5) / 6]]]))


def test_where_nobody_votes_it_is_the_mean():
    tokens = torch.tensor([[[9.0], [1.0], [2.0], [6.0]]])
    left, _ = keep_most_voted(tokens, vote_of([0.0, 0.0, 0.0], [2, 0, 1]), None, num_kept=1, num_prefix=1)
    torch.testing.assert_close(left[0, -1], torch.tensor([1.5]))


@pytest.mark.parametrize(
    ("rate", "present", "needed", "expected"),
    [(0.7, 10, 1, 7), (0.1, 30, 1, 3), (0.75, 10, 1, 8), (0.5, 10, 8, 8), (0.5, 10, 20, 10), (1.0, 10, 1, 10)],
)
def test_how_many_patches_are_kept(rate, present, needed, expected):
    reduction = TokenReduction(layers=[3], rate=rate).eval()
    assert reduction.num_kept(3, present, num_needed=needed) == expected
    assert reduction.num_kept(2, present, num_needed=needed) == present
