"""Random masks that belong to a row of the effective batch, not to the way the batch was cut.

A step's masks are drawn for the whole effective batch from (seed, layer) and each chunk, on whatever rank, takes its
own rows. One chunk or four, one process or two: the same image meets the same mask, so gradients agree and pass two
of the two-pass scheme replays pass one without storing any generator state.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Noise(NamedTuple):
    """Where a chunk's rows lie in the effective batch: rows [start, start + B) of `num_rows`, drawn from `seed`."""

    seed: int
    start: int
    num_rows: int

    @classmethod
    def fresh(cls, num_rows: int) -> "Noise":
        """Return noise for one whole batch, seeded from torch's default generator as `nn.Dropout` is."""
        return cls(int(torch.randint(2**31, ())), 0, num_rows)

    def uniform(self, stream: int, rows: int, columns: int) -> Tensor:
        """Return (rows, columns) float32 in [0, 1) on the CPU: this chunk's part of the draw named `stream`."""
        drawn: Tensor = _draw_uniform(self.seed * 1_000_003 + stream, self.num_rows, columns)
        return drawn[self.start : self.start + rows]


@torch.library.custom_op("finevote::draw_uniform", mutates_args=())
def _draw_uniform(seed: int, rows: int, columns: int) -> Tensor:
    """Return (rows, columns) float32 in [0, 1) on the CPU. An operator, so that a compiled graph can hold the draw."""
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


@_draw_uniform.register_fake
def _(seed: int, rows: int, columns: int) -> Tensor:
    del seed
    return torch.empty(rows, columns)


class RowDropout(nn.Module):
    """Zero elements of a (B, D) tensor with probability `rate`; the identity in evaluation."""

    def __init__(self, rate: float, *, stream: int) -> None:
        super().__init__()
        self.rate = rate
        self.stream = stream

    def forward(self, features: Tensor, noise: Noise | None) -> Tensor:
        """Return features (B, D), thinned out under `noise`."""
        if not self.training or self.rate == 0.0 or noise is None:
            return features
        keep = noise.uniform(self.stream, *features.shape) >= self.rate  # (B, D)
        return features * keep.to(features.device, features.dtype) / (1 - self.rate)


class RowDropPath(nn.Module):
    """Drop a residual branch (B, N, D) of whole images with probability `rate` (stochastic depth, Huang 2016)."""

    def __init__(self, rate: float, *, stream: int) -> None:
        super().__init__()
        self.rate = rate
        self.stream = stream

    def forward(self, branch: Tensor, noise: Noise | None) -> Tensor:
        """Return the branch (B, N, D), zero for the images that `noise` drops."""
        if not self.training or self.rate == 0.0 or noise is None:
            return branch
        keep = noise.uniform(self.stream, branch.shape[0], 1) >= self.rate  # (B, 1)
        return branch * keep.to(branch.device, branch.dtype)[:, :, None] / (1 - self.rate)
