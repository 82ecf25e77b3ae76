import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from finevote.voting.smoothing import KERNEL, BallotSmoothing, gate_tokens, straight_through_gates
from tests.voting import naive

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))
dilation_sets = st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True)


def random_ballots(seed, grid, images=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(7, (images, grid[0] * grid[1]), generator=generator).float()


@given(seed=st.integers(0, 1000), grid=grids, dilations=dilation_sets)
def test_smoothing_equals_a_naive_loop_exactly(seed, grid, dilations):
    ballots = random_ballots(seed, grid)
    smoothed = BallotSmoothing(dilations=dilations, learnable=False)(ballots, grid)
    assert smoothed.tolist() == [naive.smooth(image.tolist(), grid, dilations) for image in ballots]


@given(seed=st.integers(0, 1000), grid=grids)
def test_smoothing_equals_a_library_convolution(seed, grid):
    ballots = random_ballots(seed, grid)
    kernel = torch.tensor(KERNEL)[None, None]
    scales = [F.conv2d(ballots.reshape(-1, 1, *grid), kernel, padding=d, dilation=d) for d in (1, 2, 4)]
    expected = torch.stack(scales).amax(0).reshape_as(ballots)
    torch.testing.assert_close(BallotSmoothing(dilations=(1, 2, 4), learnable=False)(ballots, grid), expected)


@given(seed=st.integers(0, 1000), grid=grids)
def test_smoothing_commutes_with_flips(seed, grid):
    ballots = random_ballots(seed, grid)
    smoothing = BallotSmoothing(dilations=(1, 2, 4), learnable=False)

    def flip(ballot):
        return ballot.reshape(-1, *grid).flip(2).reshape_as(ballot)

    assert torch.equal(smoothing(flip(ballots), grid), flip(smoothing(ballots, grid)))


def test_smoothing_stays_exact_under_autocast():
    ballots = torch.full((1, 25), 24.0)
    smoothing = BallotSmoothing(dilations=(1,), learnable=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        centre = smoothing(ballots, (5, 5))[0, 12]
    assert centre.item() == 16 * 24


def test_learnable_kernels_start_as_the_fixed_one_and_get_a_gradient_through_the_gates():
    ballots, grid = random_ballots(0, (6, 6)), (6, 6)
    smoothing = BallotSmoothing(dilations=(1, 2), learnable=True)
    enhanced = smoothing(ballots, grid)
    assert torch.equal(enhanced, BallotSmoothing(dilations=(1, 2), learnable=False)(ballots, grid))
    selected = enhanced.argsort(1, descending=True)[:, :5]
    gates = straight_through_gates(enhanced, selected)
    assert torch.equal(gates, torch.ones(2, 5, 1))
    (gates * torch.randn(2, 5, 3)).sum().backward()
    assert smoothing.kernels.grad.abs().sum() > 0


@given(seed=st.integers(0, 1000), grid=grids, dilations=dilation_sets, scale=st.floats(1e-3, 1e3), data=st.data())
def test_gates_equal_exactly_one(seed, grid, dilations, scale, data):
    ballots = random_ballots(seed, grid)
    smoothing = BallotSmoothing(dilations=dilations, learnable=True)
    with torch.no_grad():
        smoothing.kernels.mul_(scale).add_(torch.randn(smoothing.kernels.shape))  # learnt kernels may turn negative
    enhanced = smoothing(ballots, grid)
    num_selected = data.draw(st.integers(1, ballots.shape[1]))
    gates = straight_through_gates(enhanced, enhanced.argsort(1, descending=True)[:, :num_selected])
    assert torch.equal(gates, torch.ones(2, num_selected, 1))


def test_gated_tokens_are_the_tokens_with_the_gradient_of_mixing_them_with_the_average():
    tokens, average = torch.randn(2, 5, 3), torch.randn(2, 1, 3)
    gates = torch.ones(2, 5, 1, requires_grad=True)
    weights = torch.randn(2, 5, 3)
    gated = gate_tokens(tokens, gates, average=average)
    assert torch.equal(gated, tokens)
    (gated * weights).sum().backward()
    torch.testing.assert_close(gates.grad, (weights * (tokens - average)).sum(-1, keepdim=True))


def test_a_step_along_the_gradient_raises_the_score_of_a_rewarded_patch():
    ballots, grid = random_ballots(1, (5, 5), images=1), (5, 5)
    smoothing = BallotSmoothing(dilations=(1,), learnable=True)
    enhanced = smoothing(ballots, grid)
    chosen = torch.tensor([[int(enhanced[0].argsort()[12])]])
    straight_through_gates(enhanced, chosen).sum().backward()
    with torch.no_grad():
        smoothing.kernels += 1e-2 * smoothing.kernels.grad
        assert smoothing(ballots, grid)[0, chosen] > enhanced[0, chosen]


@pytest.mark.parametrize("learnable", [False, True])
def test_only_learnable_kernels_are_saved(learnable):
    assert ("kernels" in BallotSmoothing(dilations=(1,), learnable=learnable).state_dict()) == learnable
