"""Counters of refused callers."""

from __future__ import annotations

from typing import Final, Literal

FailureReason = Literal["missing", "unknown", "expired", "invalid"]

_REASONS: Final[tuple[FailureReason, ...]] = ("missing", "unknown", "expired", "invalid")


class AccessCounters:
    """Plain integers that only increase."""

    __slots__ = ("denied", "failures")

    def __init__(self) -> None:
        self.failures: dict[FailureReason, int] = dict.fromkeys(_REASONS, 0)
        """Calls without a known credential, by reason."""
        self.denied = 0
        """Calls, and queries of batches, whose caller lacks the right or may not use the model."""
