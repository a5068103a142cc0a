"""How often callers were turned away."""

from __future__ import annotations

from typing import Final, Literal

FailureReason = Literal["missing", "unknown", "expired", "invalid"]

_REASONS: Final[tuple[FailureReason, ...]] = ("missing", "unknown", "expired", "invalid")


class AccessCounters:
    """Plain numbers that only grow."""

    __slots__ = ("denied", "failures")

    def __init__(self) -> None:
        self.failures: dict[FailureReason, int] = dict.fromkeys(_REASONS, 0)
        """Calls without a credential that is known, by what was wrong."""
        self.denied = 0
        """Calls, and queries of batches, for which a right or a model was not the caller's."""
