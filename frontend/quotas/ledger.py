"""Interface of quota ledgers, and the arithmetic of a token bucket.

A token bucket holds the burst and refills at the rate. Its state is one number, the time at which the bucket is full
again. A call delays that time by as long as its documents take to refill, and is refused if the bucket does not hold
enough. A batch of more documents than the burst is admitted when the bucket is full, and its tenant waits longer
afterwards. So every batch is eventually served, and no tenant exceeds the rate on average.
"""

from __future__ import annotations

from typing import Final, Protocol

from serving.call.limits import Limits
from serving.domain.errors import QuotaExceeded

MOST_TENANTS: Final = 65_536
"""Maximum number of remembered tenants without a call in flight."""

_IN_FLIGHT_RETRY_SECONDS: Final = 0.1


class Tenant(Protocol):
    """A tenant with a call in flight."""

    def leave(self) -> None:
        """Release the slot of one call."""


class Ledger(Protocol):
    """Record of each tenant's usage. Belongs to one event loop."""

    def enter(self, name: str, limits: Limits, documents: int) -> Tenant | None:
        """Admit a call of the tenant ``name`` with the given number of documents.

        Returns:
            The tenant, whose :meth:`Tenant.leave` is due when the call ends; ``None`` if nothing is counted until then.

        Raises:
            QuotaExceeded: the call exceeds the tenant's limits. The ledger is unchanged then.
        """


def check_in_flight(in_flight: int, limits: Limits) -> None:
    """Check that one more call may be in flight. Raises QuotaExceeded."""
    if limits.in_flight and in_flight >= limits.in_flight:
        raise QuotaExceeded(
            f"the quota of {limits.in_flight} calls at the same time is used up; try again when one has ended",
            _IN_FLIGHT_RETRY_SECONDS,
        )


def check_bucket(until_full: float, limits: Limits, documents: int, tolerance: float) -> None:
    """Check that a bucket has enough left for a number of documents.

    Args:
        until_full: seconds until the bucket is full.
        limits: limits of the tenant, with a rate.
        documents: number of documents.
        tolerance: allowance for rounding, in seconds.

    Raises:
        QuotaExceeded: the bucket does not have enough left.
    """
    rate, most = limits.requests_per_second, limits.most_at_once
    wait = until_full - (most - min(documents, most)) / rate
    if wait > tolerance:
        raise QuotaExceeded(
            f"the quota of {rate:g} requests a second is used up; try again in {wait:.3f} seconds", wait
        )


def full_at_first(forgotten_full_at: float, limits: Limits, now: float) -> float:
    """Return when the bucket of an unknown tenant is full: the tenant may have been forgotten a moment ago.

    Args:
        forgotten_full_at: latest time at which a forgotten bucket is full.
        limits: limits of the tenant.
        now: current time.
    """
    rate = limits.requests_per_second
    return min(forgotten_full_at, now + limits.most_at_once / rate) if rate else now
