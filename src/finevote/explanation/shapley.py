"""What each of several players adds to a game, by Shapley: the mean over the orders in which they may come."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finevote.errors import ArgumentError

Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]


class Shapley(NamedTuple):
    """values (m,) and their Monte Carlo standard errors (m,); the values sum to `with_all` - `with_none`."""

    values: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    with_all: float
    with_none: float


def estimate_shapley(game: Game, *, num_players: int, num_permutations: int, seed: int) -> Shapley:
    """Estimate Shapley values from random orders of the players (Castro, Gomez and Tejada 2009).

    Each drawn order is also gone through backwards, which cancels much of the noise (Mitchell et al. 2022). In every
    order the players' shares sum to the whole exactly, and so do their means. The standard errors are those of means
    over independent pairs of orders.

    Args:
        game: the worth of coalitions, (n, m) bool to (n,); it is asked once, for coalitions that are all different.
        num_players: m, at least 1.
        num_permutations: orders, an even number from 4.
        seed: of the orders.

    Raises:
        ArgumentError: there are no players, or no such number of orders.
    """
    if num_players < 1:
        raise ArgumentError(f"num_players={num_players} must be 1 or more")
    if num_permutations < 4 or num_permutations % 2:
        raise ArgumentError(f"num_permutations={num_permutations} must be an even number from 4: they come in pairs")
    rng = np.random.default_rng(seed)
    drawn = np.stack([rng.permutation(num_players) for _ in range(num_permutations // 2)])
    orders = np.stack([drawn, drawn[:, ::-1]], axis=1)  # (pairs, 2, m)
    coalitions = _beginnings(orders)  # (pairs, 2, m + 1, m)
    distinct, which = np.unique(coalitions.reshape(-1, num_players), axis=0, return_inverse=True)
    worths = game(distinct)[which.reshape(coalitions.shape[:-1])]  # (pairs, 2, m + 1)
    added = np.empty(orders.shape)
    np.put_along_axis(added, orders, np.diff(worths, axis=-1), axis=-1)  # by player
    pairs = added.mean(axis=1)  # (pairs, m)
    return Shapley(
        values=pairs.mean(axis=0),
        standard_errors=pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs)),
        with_all=float(worths[0, 0, -1]),
        with_none=float(worths[0, 0, 0]),
    )


def _beginnings(orders: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return who is there after 0, 1, ..., m players of each order have come, (..., m + 1, m)."""
    num_players = orders.shape[-1]
    arrivals = np.argsort(orders, axis=-1)  # (..., m), the place of each player in the order
    return arrivals[..., None, :] < np.arange(num_players + 1)[:, None]
