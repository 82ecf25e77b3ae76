import torch

from finevote.voting.refinement import count_picks, vote_again


def test_ties_of_the_second_vote_go_to_the_higher_attention():
    rows = torch.tensor([[[0.1, 0.4, 0.3, 0.2], [0.4, 0.1, 0.2, 0.3]]])  # one vote each: patches 1 and 0
    rows[0, 0, 1] = 0.5
    vote = vote_again(rows, num_votes=1, num_key_tokens=2)
    assert vote.ballots.tolist() == [[1, 1, 0, 0]]
    assert vote.positions.tolist() == [[1, 0]]


def test_picks_are_counted_by_the_layer_that_offered_the_token():
    positions = torch.tensor([[0, 2, 3], [3, 4, 8]])
    assert count_picks(positions, budget=(3, 0, 2, 4)).tolist() == [2, 0, 3, 1]


def test_noise_credits_every_layer_alike():
    """A stable sort would credit the first layers: on pure noise each layer must get its share of the picks."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(4000, 6, 44, generator=generator)
    vote = vote_again(rows, num_votes=8, num_key_tokens=8)
    picks = count_picks(vote.positions, budget=(11, 11, 11, 11)).float()
    shares = picks / picks.sum()
    assert (shares - 0.25).abs().max() < 0.01
