"""Which patches a layer forwards, and how many: an exact budget that may move towards the layers that are picked."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from finevote.errors import ArgumentError


def rank_patches(scores: Tensor, mass: Tensor) -> Tensor:
    """Return patch numbers (B, P), best first: by score, then by attention mass, then by the lower number.

    The order of docs/method.md, 4. Vote counts are small whole numbers with many ties; breaking them by position
    credits whatever comes first.

    Args:
        scores: (B, P).
        mass: (B, P) mean attention over the heads.
    """
    by_mass = mass.argsort(dim=1, descending=True, stable=True)  # (B, P)
    by_score = scores.gather(1, by_mass).argsort(dim=1, descending=True, stable=True)  # (B, P)
    return by_mass.gather(1, by_score)


def take_tokens(tokens: Tensor, positions: Tensor) -> Tensor:
    """Return tokens (B, k, D) at positions (B, k) of tokens (B, P, D)."""
    return tokens.gather(1, positions[..., None].expand(-1, -1, tokens.shape[-1]))


def allocate(rates: Sequence[float], *, total: int, limit: int) -> tuple[int, ...]:
    """Share `total` tokens by `rates` into whole numbers that sum to `total`, none above `limit`.

    Largest remainder; equal remainders go to the earlier layer. What a full layer cannot take is shared among the
    others by the same rates.

    Raises:
        ArgumentError: `total` exceeds what all layers hold together, or a rate is negative or not finite.
    """
    if total > limit * len(rates):
        raise ArgumentError(
            f"num_selected={total} exceeds the {limit * len(rates)} tokens of {len(rates)} layers x {limit} patches: "
            "lower it or enlarge the image"
        )
    if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
        raise ArgumentError(f"rates must be finite and not negative, but got {list(rates)}")
    counts = [0] * len(rates)
    while (left := total - sum(counts)) > 0:
        open_layers = [layer for layer, count in enumerate(counts) if count < limit]
        for layer, share in _largest_remainder([rates[layer] for layer in open_layers], left).items():
            counts[open_layers[layer]] = min(limit, counts[open_layers[layer]] + share)
    return tuple(counts)


def _largest_remainder(rates: Sequence[float], total: int) -> dict[int, int]:
    whole = sum(rates)
    shares = [total * rate / whole if whole > 0 else total / len(rates) for rate in rates]
    counts = {layer: math.floor(share) for layer, share in enumerate(shares)}
    by_remainder = sorted(counts, key=lambda layer: (counts[layer] - shares[layer], layer))
    for layer in by_remainder[: total - sum(counts.values())]:
        counts[layer] += 1
    return counts


def move_rates(
    rates: Sequence[float],
    picks: Sequence[int],
    offered: Sequence[int],
    *,
    momentum: float,
    by: Literal["yield", "count"],
) -> list[float]:
    """Return the rates after one step of dynamic selection (docs/method.md, 9), r <- (1 - m) r + m r_new, summing to 1.

    By "count" r_new is the share of picks, as published; it feeds back on itself, since picks are in proportion to
    the tokens a layer offers. By "yield" it is the share of picks per token offered, which settles. A layer that
    offered nothing gave no evidence and keeps its rate.
    """
    evidence = list(picks) if by == "count" else [p / o if o else 0.0 for p, o in zip(picks, offered, strict=True)]
    heard = [by == "count" or o > 0 for o in offered]
    total_evidence = sum(evidence)
    if total_evidence == 0:
        return list(rates)
    share_heard = sum(rate for rate, ok in zip(rates, heard, strict=True) if ok)
    new = [e / total_evidence * share_heard if ok else rate for rate, e, ok in zip(rates, evidence, heard, strict=True)]
    moved = [(1 - momentum) * rate + momentum * fresh for rate, fresh in zip(rates, new, strict=True)]
    return [rate / sum(moved) for rate in moved]


def _derive_counts_after_loading(budget: "TokenBudget", _incompatible_keys: object) -> None:
    budget.derive_counts()


class TokenBudget(nn.Module):
    """How many tokens each voting layer forwards; `counts` sums to `total` at every step.

    The rates are a buffer: they change predictions, so they are saved with the weights. `counts` is derived from it
    at construction, on `load_state_dict` and on `update`, never in a forward pass, which therefore need not wait for
    a device. It is a list, since torch.compile takes the numbers of a tuple for constants.

    Args:
        initial_rates: one positive number a layer, any scale.
        total: T, tokens forwarded by all layers together.
        limit: P, patches of a layer.
        momentum: share of the new rates in an update.
        by: what moves the rates; "off" keeps them.
    """

    rates: Tensor

    def __init__(
        self,
        *,
        initial_rates: Sequence[float],
        total: int,
        limit: int,
        momentum: float,
        by: Literal["yield", "count", "off"],
    ) -> None:
        super().__init__()
        self.total = total
        self.limit = limit
        self.momentum = momentum
        self.by = by
        whole = sum(initial_rates)
        self.register_buffer("rates", torch.tensor([rate / whole for rate in initial_rates]))  # (S,)
        self.counts: list[int] = []
        self.derive_counts()
        self.register_load_state_dict_post_hook(_derive_counts_after_loading)  # type: ignore[no-untyped-call]

    def update(self, picks: Tensor) -> None:
        """Move the rates by the key tokens that came from each layer, (S,) counts over the effective batch."""
        if self.by == "off":
            return
        moved = move_rates(self.rates.tolist(), picks.tolist(), self.counts, momentum=self.momentum, by=self.by)
        self.rates.copy_(torch.tensor(moved))
        self.derive_counts()

    def derive_counts(self) -> None:
        """Set `counts` from the rates."""
        self.counts = list(allocate(self.rates.tolist(), total=self.total, limit=self.limit))
