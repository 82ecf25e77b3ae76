"""Why one class and not another: what the tokens of each patch add to the difference of their logits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finevote.explanation.explained import Contrast
from finevote.explanation.shapley import estimate_shapley
from finevote.voting.head import PlacedTokens, VotingHead

NUM_PERMUTATIONS = 32
_BATCH = 64


def contrast_patches(
    head: VotingHead,
    cls: Tensor,
    gathered: PlacedTokens,
    *,
    classes: tuple[int, int],
    class_names: tuple[str, str],
    grid: tuple[int, int],
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Contrast:
    """Return what the selected tokens of each patch add to logit_A - logit_B of one image.

    The players are the patches that any layer selected; one that leaves takes all its tokens along, and the head runs
    anew on those that stay, second vote included. The values are Shapley's, so that they share out the difference
    between all tokens and none without a rest (Lundberg and Lee 2017).

    What is measured is the effect of the tokens from the refinement stage on. CLS has seen every patch in the trunk
    already and stays as it is: what it knows is in the difference that is left without any token, and not in the map.
    Tokens merged from unselected patches stay, too.

    Args:
        head: of the model, in evaluation mode.
        cls: (1, 1, D) after the trunk.
        gathered: the tokens of this image, (1, n, D), the T selected first.
        classes: the numbers of A and B.
        class_names: what they are called.
        grid: rows, columns of patches.
        num_permutations: orders in which patches come, an even number from 4.
        seed: of the orders.

    Raises:
        ArgumentError: as `estimate_shapley`.
    """
    num_selected = head.budget.total
    patch_of_token = gathered.patches[0, :num_selected].cpu().numpy()  # (T,)
    patches = np.flatnonzero(np.bincount(patch_of_token))  # (m,), the players
    player_of_token = np.searchsorted(patches, patch_of_token)  # (T,)

    def game(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        is_there = torch.from_numpy(coalitions[:, player_of_token]).to(cls.device)  # (n, T)
        return _differences(head, cls, gathered, is_there, classes=classes)

    found = estimate_shapley(game, num_players=len(patches), num_permutations=num_permutations, seed=seed)
    return Contrast(
        class_a=class_names[0],
        class_b=class_names[1],
        difference=found.with_all,
        difference_without=found.with_none,
        contributions=_on_grid(found.values, patches, grid),
        standard_errors=_on_grid(found.standard_errors, patches, grid),
        num_permutations=num_permutations,
    )


@torch.inference_mode()
def _differences(
    head: VotingHead, cls: Tensor, gathered: PlacedTokens, is_there: Tensor, *, classes: tuple[int, int]
) -> NDArray[np.float64]:
    """Return logit_A - logit_B (n,) where only some of the T tokens are there, (n, T) bool.

    What has equally many tokens runs together, so that no attention needs a mask.
    """
    counts = is_there.sum(1)
    order = (~is_there).to(torch.uint8).argsort(dim=1, stable=True)  # those that are there first, ranks kept
    differences = np.empty(len(is_there))
    for count in sorted(set(counts.tolist())):
        for rows in (counts == count).nonzero()[:, 0].split(_BATCH):
            subset = _take(gathered, order[rows, :count], num_selected=is_there.shape[1])
            logits = head.classify(cls.expand(len(rows), -1, -1), subset, num_selected=count).logits.cpu().double()
            differences[rows.cpu().numpy()] = (logits[:, classes[0]] - logits[:, classes[1]]).numpy()
    return differences


def _take(gathered: PlacedTokens, positions: Tensor, *, num_selected: int) -> PlacedTokens:
    """Return the tokens (n, k, D) at positions (n, k) of one image's selected ones, and all merged ones behind them."""
    rest = torch.arange(num_selected, gathered.tokens.shape[1], device=positions.device)
    kept = torch.cat([positions, rest.expand(len(positions), -1)], dim=1)
    return PlacedTokens(gathered.tokens[0][kept], gathered.patches[0][kept])


def _on_grid(values: NDArray[np.float64], patches: NDArray[np.int64], grid: tuple[int, int]) -> NDArray[np.float64]:
    laid = np.zeros(grid[0] * grid[1])
    laid[patches] = values
    return laid.reshape(grid)
