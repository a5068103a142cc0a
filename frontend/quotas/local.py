"""Quotas of a frontend with a single process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from frontend.quotas.ledger import MOST_TENANTS, check_bucket, check_in_flight, full_at_first
from serving.call.limits import Limits
from serving.domain.errors import QuotaExceeded

_CLOCK_ROUNDING_SECONDS: Final = 1e-9


class LocalTenant:
    """State of a tenant."""

    __slots__ = ("_ledger", "full_at", "in_flight", "name")

    def __init__(self, ledger: LocalLedger, name: str, full_at: float) -> None:
        self._ledger = ledger
        self.name = name
        self.full_at = full_at
        """Time at which the bucket is full again, on the monotonic clock; a time in the past means that it is full."""
        self.in_flight = 0
        """Number of calls in flight."""

    def leave(self) -> None:
        """Release the slot of one call."""
        self.in_flight -= 1
        if not self.in_flight:
            self._ledger.rest(self)


class LocalLedger:
    """A :class:`~frontend.quotas.ledger.Ledger` in the memory of this process.

    Args:
        most_tenants: maximum number of idle tenants that are remembered.
        clock: returns the time in seconds.
    """

    def __init__(self, *, most_tenants: int = MOST_TENANTS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_tenants = most_tenants
        self._clock = clock
        self._busy: dict[str, LocalTenant] = {}
        self._idle: OrderedDict[str, LocalTenant] = OrderedDict()
        """Tenants without a call in flight, the longest idle first."""
        self._forgotten_full_at = 0.0

    def enter(self, name: str, limits: Limits, documents: int) -> LocalTenant:
        """Admit a call. Raises QuotaExceeded."""
        now = self._clock()
        tenant = self._busy.get(name)
        if tenant is None:
            tenant = self._idle.pop(name, None)
            if tenant is None:
                tenant = LocalTenant(self, name, full_at_first(self._forgotten_full_at, limits, now))
            self._busy[name] = tenant
        try:
            _take(tenant, limits, documents, now)
        except QuotaExceeded:
            if not tenant.in_flight:
                self.rest(tenant)
            raise
        tenant.in_flight += 1
        return tenant

    def rest(self, tenant: LocalTenant) -> None:
        """Mark the tenant as idle: it no longer has a call in flight."""
        del self._busy[tenant.name]
        self._idle[tenant.name] = tenant
        if len(self._idle) > self._most_tenants:
            _, forgotten = self._idle.popitem(last=False)
            self._forgotten_full_at = max(self._forgotten_full_at, forgotten.full_at)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)


def _take(tenant: LocalTenant, limits: Limits, documents: int, now: float) -> None:
    """Take the documents out of the tenant's bucket, or raise QuotaExceeded and change nothing."""
    check_in_flight(tenant.in_flight, limits)
    rate = limits.requests_per_second
    if rate:
        until_full = max(tenant.full_at - now, 0.0)
        check_bucket(until_full, limits, documents, _CLOCK_ROUNDING_SECONDS)
        tenant.full_at = now + until_full + documents / rate
