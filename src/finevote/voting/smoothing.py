"""Ballots are smoothed at several scales, so that a patch counts for more where its surroundings are voted for too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KERNEL = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))


def convolve(ballots: Tensor, kernel: Tensor, *, grid: tuple[int, int], dilation: int) -> Tensor:
    """Return the ballot convolved with a 3x3 kernel on the patch grid, zeros outside.

    The nine taps are added one by one instead of calling a convolution: counts are whole numbers and stay exact,
    where a library may pick a transform that rounds or, under autocast, a short dtype.

    Args:
        ballots: (B, P) float32.
        kernel: (3, 3) float32.
        grid: rows, columns; rows x columns = P.
        dilation: distance between taps, in patches.

    Returns:
        (B, P) float32.
    """
    rows, columns = grid
    padded = F.pad(ballots.reshape(-1, rows, columns), (dilation,) * 4)  # (B, rows + 2d, columns + 2d)
    total = torch.zeros_like(ballots).reshape(-1, rows, columns)
    for i in range(3):
        for j in range(3):
            top, left = i * dilation, j * dilation
            total = total + kernel[i, j] * padded[:, top : top + rows, left : left + columns]
    return total.reshape_as(ballots)


class BallotSmoothing(nn.Module):
    """Element-wise maximum of a ballot convolved at each dilation.

    A fixed kernel is [[1,2,1],[2,4,2],[1,2,1]] at every scale (docs/method.md, 3; IELT has `dilations=(1,)` only).
    With `learnable` each scale has a kernel of its own that starts there. Ranking alone would give it no gradient:
    `straight_through_gates` returns gates that are exactly 1 forward and carry the gradient of each selected token's
    score backward, and `gate_tokens` makes that the gradient of having the token instead of an average one, so a
    kernel that raises the score of a useful token is rewarded.

    Args:
        dilations: scales in patches; at least one.
        learnable: whether the kernels are parameters.
    """

    def __init__(self, *, dilations: Sequence[int], learnable: bool) -> None:
        super().__init__()
        self.dilations = tuple(dilations)
        kernels = torch.tensor([KERNEL] * len(self.dilations))  # (scales, 3, 3)
        self.learnable = learnable
        if learnable:
            self.kernels = nn.Parameter(kernels)
        else:
            self.register_buffer("kernels", kernels, persistent=False)

    def forward(self, ballots: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return enhanced ballots (B, P) float32 from ballots (B, P)."""
        with torch.autocast(ballots.device.type, enabled=False):
            kernels = self.kernels.float()
            scales = [
                convolve(ballots.float(), kernels[i], grid=grid, dilation=dilation)
                for i, dilation in enumerate(self.dilations)
            ]
        return torch.stack(scales).amax(0)


def straight_through_gates(enhanced: Tensor, selected: Tensor) -> Tensor:
    """Return (B, k, 1) gates equal to 1 whose gradient is that of the selected patches' scores.

    A score s in [0, 1] (divided by the image's highest) makes the gate 1 + (s - stop_gradient(s)).

    Args:
        enhanced: (B, P) scores with a gradient.
        selected: (B, k) patch numbers.
    """
    scores = enhanced / enhanced.detach().amax(1, keepdim=True).clamp_min(1e-6)  # (B, P)
    scores = scores.gather(1, selected)  # (B, k)
    return (1 + (scores - scores.detach()))[..., None]  # the brackets keep the 1 exact


def gate_tokens(tokens: Tensor, gates: Tensor, *, average: Tensor) -> Tensor:
    """Return the tokens as they are; a gate's gradient is that of average + gate (token - average) at 1.

    A gate that scaled the token would be told next to nothing: the norm at the head of a block undoes any scale.

    Args:
        tokens: (B, k, D).
        gates: (B, k, 1), all 1.
        average: (B, 1, D) what an untelling token would be: the mean of the layer's patches.
    """
    return tokens + (gates - 1).to(tokens.dtype) * (tokens - average).detach()
