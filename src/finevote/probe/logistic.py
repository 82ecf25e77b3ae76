"""Multinomial logistic regression on frozen features, by torch's L-BFGS, on a GPU where there is one.

It minimises the mean cross-entropy of softmax(W z + b) plus (penalty / 2) |W|^2, the bias left out: scikit-learn's
`LogisticRegression(C=1 / (penalty n))`. z are the features standardised by the training images, each to mean 0 and
deviation 1: one penalty is then as strong for every feature, whatever its scale, and L-BFGS needs few steps.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from finevote.errors import ArgumentError

PENALTIES = tuple(10.0**power for power in range(0, -7, -1))  # that are tried, the strongest first
MAX_STEPS = 300  # of L-BFGS for one penalty; weak ones on few images may stop there
_GRADIENT_TOLERANCE = 1e-5
_CONSTANT_BELOW = 1e-6  # deviation of a feature that says nothing, beside the largest deviation


class Linear(NamedTuple):
    """W (C, D) and b (C,) on features as they are: what standardised them is folded in."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def logits(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (n, C) for features (n, D)."""
        logits: NDArray[np.float32] = features @ self.weight.T + self.bias
        return logits


class Scale(NamedTuple):
    """Mean and deviation (D,) of each feature over the training images; 1 for one that is constant."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> Self:
        """Measure features (n, D)."""
        mean, deviation = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
        is_constant = deviation <= _CONSTANT_BELOW * deviation.max(initial=0.0)
        return cls(mean, np.where(is_constant, 1.0, deviation))

    def apply(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return standardised features (n, D)."""
        scaled: NDArray[np.float32] = ((features - self.mean) / self.deviation).astype(np.float32)
        return scaled

    def fold(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> Linear:
        """Return the same function of features as they are: W / deviation, b - (W / deviation) mean."""
        folded = weight / self.deviation
        return Linear(folded.astype(np.float32), (bias - folded @ self.mean).astype(np.float32))


def fit_logistic(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: str = "cpu",
) -> list[Linear]:
    """Return a regression for each penalty, in their order, each started from the one before.

    Args:
        features: (n, D).
        labels: (n,).
        num_classes: C.
        penalties: best from strong to weak.
        device: where it is fitted.

    Raises:
        ArgumentError: there are no images, or a penalty is not above 0.
    """
    if not len(features) or min(penalties) <= 0:
        raise ArgumentError(f"{len(features)} images, penalties {list(penalties)}: give images, and penalties above 0")
    scale = Scale.of(features)
    inputs = torch.from_numpy(scale.apply(features)).to(device)
    targets = torch.from_numpy(labels).to(device)
    weight = inputs.new_zeros(num_classes, inputs.shape[1]).requires_grad_()
    bias = inputs.new_zeros(num_classes).requires_grad_()
    found = []
    for penalty in penalties:
        _minimise(inputs, targets, weight, bias, penalty=penalty)
        found.append(scale.fold(*(part.detach().double().cpu().numpy() for part in (weight, bias))))
    return found


def _minimise(inputs: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, *, penalty: float) -> None:
    """Move `weight` and `bias` to the minimum, in place."""
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=MAX_STEPS,
        history_size=20,
        tolerance_grad=_GRADIENT_TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(inputs @ weight.mT + bias, targets) + penalty / 2 * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
