"""What a cache of models meets: how often each is asked for, and the bytes it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

# Models whose popularity differs by less are taken as one kind: 100,000 models become a few hundred groups, and the hit
# rate moves by less than 0.00002.
_WIDTH: Final = 0.02


@dataclass(frozen=True, slots=True)
class Group:
    """Models that are asked for about equally often."""

    models: int
    share: float
    """Of all requests, those for these models together."""
    size: int
    """Bytes of memory that these models take together."""

    @property
    def rate(self) -> float:
        """Of all requests, those for one of these models."""
        return self.share / self.models


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests for models that come independently of each other, each model with a popularity that stays."""

    groups: tuple[Group, ...]
    """The models that can be in memory."""
    models: int
    """How many models are asked for."""
    size: int
    """Bytes of memory that all of them would take."""
    hottest: float
    """Of all requests, those for the most popular model."""
    refused: int = 0
    """How many are larger than the whole budget, and so are never served."""

    @classmethod
    def of(cls, requests: Sequence[float], sizes: Sequence[int], *, budget: int) -> Self:
        """Return the demand for models that are asked for ``requests`` times, in any unit, and take ``sizes`` bytes.

        Args:
            requests: not negative, and one at least is more. A model that nobody asks for takes no part.
            sizes: at least 1.
            budget: bytes for models in one predictor; it refuses a model that alone takes more.
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
        # In an order of their own, so that sums do not depend on that of the models.
        groups = tuple(Group(*kinds[kind]) for kind in sorted(kinds, reverse=True))
        return cls(
            groups=groups,
            models=len(asked),
            size=sum(size for _, size in asked),
            hottest=max(share for share, _ in asked),
            refused=len(asked) - sum(group.models for group in groups),
        )


def zipf(models: int, exponent: float) -> list[float]:
    """Return the requests for each model, the one at rank r with ``1 / r ** exponent``; 0 makes all alike."""
    return [rank**-exponent for rank in range(1, models + 1)]
