"""Demand on a cache of models: how often each model is requested, and how many bytes it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

# Models whose popularity differs by less than this fraction form one group: 100,000 models become a few hundred groups,
# and the hit rate changes by less than 0.00002.
_WIDTH: Final = 0.02


@dataclass(frozen=True, slots=True)
class Group:
    """Models that are requested about equally often."""

    models: int
    share: float
    """Share of all requests that are for these models together."""
    size: int
    """Memory that these models take together, in bytes."""

    @property
    def rate(self) -> float:
        """Share of all requests that are for each of these models."""
        return self.share / self.models


@dataclass(frozen=True, slots=True)
class Demand:
    """Independent requests for models whose popularity is constant."""

    groups: tuple[Group, ...]
    """Models that fit into the budget, by popularity."""
    models: int
    """Number of requested models."""
    size: int
    """Memory that all requested models would take, in bytes."""
    hottest: float
    """Share of all requests that are for the most popular model."""
    refused: int = 0
    """Number of models that are larger than the whole budget and therefore never served."""

    @classmethod
    def of(cls, requests: Sequence[float], sizes: Sequence[int], *, budget: int) -> Self:
        """Return the demand for models that are requested ``requests`` times, in any unit, and take ``sizes`` bytes.

        Args:
            requests: requests for each model; none negative, at least one positive. Unrequested models are ignored.
            sizes: bytes of each model, at least 1.
            budget: bytes for models in one predictor, which refuses a model that alone takes more.
        """
        every = math.fsum(requests)
        shares = [number / every for number in requests]
        asked = [(share, size) for share, size in zip(shares, sizes, strict=True) if share > 0]
        kinds: dict[int, tuple[int, float, int]] = {}
        for share, size in asked:
            if size <= budget:
                kind = math.floor(math.log(share) / _WIDTH)
                models, together, taken = kinds.get(kind, (0, 0.0, 0))
                kinds[kind] = models + 1, together + share, taken + size
        # Sort the groups, so that sums do not depend on the order of the models.
        groups = tuple(Group(*kinds[kind]) for kind in sorted(kinds, reverse=True))
        return cls(
            groups=groups,
            models=len(asked),
            size=sum(size for _, size in asked),
            hottest=max(share for share, _ in asked),
            refused=len(asked) - sum(group.models for group in groups),
        )


def zipf(models: int, exponent: float) -> list[float]:
    """Return the requests for each model: ``1 / r ** exponent`` at rank r. An exponent of 0 makes all models equal."""
    return [rank**-exponent for rank in range(1, models + 1)]
