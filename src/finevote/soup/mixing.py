"""The weights of several models averaged, and which of them to take: no files, no runs."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from finevote.errors import ArgumentError

Chosen = tuple[int, ...]  # numbers of ingredients, rising


def average(states: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of every tensor, one state after the other, so that two of them are in memory at most.

    Floating-point tensors are summed in float64 and rounded once to their own type, so equal ones stay as they are.
    Buffers are averaged like weights: the rates of a token budget still sum to 1, and the whole numbers of tokens are
    derived from them when the state is loaded. Tensors of whole numbers or booleans are no amounts, and must agree.

    Raises:
        ArgumentError: there are no states, they do not fit together, or whole numbers differ.
    """
    sums: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    number = 0
    for number, state in enumerate(states, start=1):  # counted while they are read
        if number == 1:
            kinds = {name: tensor.dtype for name, tensor in state.items()}
            sums = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        else:
            _check_fits(sums, kinds, state, number=number)
            sums = {
                name: total + state[name] if kinds[name].is_floating_point else total for name, total in sums.items()
            }
    if not number:
        raise ArgumentError("there is nothing to average: give the weights of one model or more")
    return {
        name: (total / number).to(kinds[name]) if kinds[name].is_floating_point else total
        for name, total in sums.items()
    }


def choose_greedily(accuracies: Sequence[float], accuracy_of: Callable[[Chosen], float]) -> Chosen:
    """Return the ingredients of the greedy soup (Wortsman et al. 2022, Recipe 1), best first in `accuracies`' order.

    From the best one on, the next best joins if the average with it is at least as accurate as the one without. So the
    soup is never less accurate than the best ingredient, on the images that `accuracy_of` looks at.

    Args:
        accuracies: of each ingredient by itself; of equal ones the earlier is tried first.
        accuracy_of: the accuracy of the average of these ingredients.

    Raises:
        ArgumentError: there are none.
    """
    if not accuracies:
        raise ArgumentError("there is nothing to choose from: give the accuracy of one model or more")
    best, *others = sorted(range(len(accuracies)), key=lambda number: -accuracies[number])
    chosen: Chosen = (best,)
    reached = accuracies[best]
    for other in others:
        tried = tuple(sorted((*chosen, other)))
        found = accuracy_of(tried)
        if found >= reached:
            chosen, reached = tried, found
    return chosen


def _check_fits(
    sums: Mapping[str, Tensor], kinds: Mapping[str, torch.dtype], state: Mapping[str, Tensor], *, number: int
) -> None:
    got = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
    wanted = {name: (tuple(tensor.shape), kinds[name]) for name, tensor in sums.items()}
    if differing := sorted({name for name, _ in wanted.items() ^ got.items()}):
        name = differing[0]
        raise ArgumentError(
            f"model {number} differs from the first in {len(differing)} tensors ({name} is {got.get(name, 'missing')} "
            f"instead of {wanted.get(name, 'absent')}): average models of one architecture"
        )
    counts = [name for name, kind in kinds.items() if not kind.is_floating_point]
    if changed := [name for name in counts if not torch.equal(sums[name], state[name])]:
        raise ArgumentError(
            f"model {number} has other whole numbers than the first in {', '.join(changed)}, and these cannot be "
            "averaged: leave it out"
        )
