"""The contract of ledgers of quotas, and the arithmetic of a token bucket.

A token bucket holds the burst and is filled at the rate. It is kept as one number, the time at which it is full again:
a call moves that time on by what its documents take to be filled up, and is refused where the bucket does not have as
many. A batch of more documents than the burst is admitted when the bucket is full, and its tenant waits for longer
afterwards: so every batch is served some time, and on average nobody gets more than the rate.
"""

from __future__ import annotations

from typing import Final, Protocol

from serving.call.limits import Limits
from serving.domain.errors import QuotaExceeded

MOST_TENANTS: Final = 65_536
"""Tenants without a call in flight that are remembered."""

_IN_FLIGHT_RETRY_SECONDS: Final = 0.1


class Tenant(Protocol):
    """A tenant with a call in flight."""

    def leave(self) -> None:
        """Give the slot of one call back."""


class Ledger(Protocol):
    """Knows how much each tenant has asked. Belongs to one event loop."""

    def enter(self, name: str, limits: Limits, documents: int) -> Tenant | None:
        """Admit a call of the tenant ``name`` with so many documents.

        Returns:
            What has to leave when the call ends; ``None`` where nothing is counted until then.

        Raises:
            QuotaExceeded: the tenant asks for more than its limits allow. Nothing has changed then.
        """


def check_in_flight(in_flight: int, limits: Limits) -> None:
    """Return if one more call may be in flight. Raises QuotaExceeded."""
    if limits.in_flight and in_flight >= limits.in_flight:
        raise QuotaExceeded(
            f"the quota of {limits.in_flight} calls at the same time is used up; try again when one has ended",
            _IN_FLIGHT_RETRY_SECONDS,
        )


def check_bucket(until_full: float, limits: Limits, documents: int, tolerance: float) -> None:
    """Return if a bucket has so many documents left.

    Args:
        until_full: seconds until it is full.
        limits: of the tenant, with a rate.
        documents: that are asked for.
        tolerance: seconds that rounding may be off.

    Raises:
        QuotaExceeded: it has not.
    """
    rate, most = limits.requests_per_second, limits.most_at_once
    wait = until_full - (most - min(documents, most)) / rate
    if wait > tolerance:
        raise QuotaExceeded(
            f"the quota of {rate:g} requests a second is used up; try again in {wait:.3f} seconds", wait
        )


def full_at_first(forgotten_full_at: float, limits: Limits, now: float) -> float:
    """Return when the bucket of a tenant that is not known is full: the tenant may have been forgotten a moment ago.

    Args:
        forgotten_full_at: latest time at which a bucket that was forgotten is full.
        limits: of the tenant.
        now: time.
    """
    rate = limits.requests_per_second
    return min(forgotten_full_at, now + limits.most_at_once / rate) if rate else now
