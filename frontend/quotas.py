"""How much each tenant may ask: documents a second, and calls at the same time.

A token bucket holds the burst and is filled at the rate. It is kept as one number, the time at which it is full again:
whoever asks moves that time on by what the documents take to be filled up, and is refused where the bucket does not
have as many. A batch of more documents than the burst is let in when the bucket is full, and its owner waits for longer
afterwards: so every batch is served some time, and on average nobody gets more than the rate.

A tenant is an identity, or, where everybody may call, the name of a model.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from typing import Final

from serving.access.identity import ANYBODY, Identity
from serving.access.limits import Limits
from serving.errors import QuotaExceeded
from serving.model_id import VERSION_MARK

MOST_TENANTS: Final = 65_536
"""Tenants without a call in flight that are remembered."""
MOST_REFUSED: Final = 4096
"""Tenants whose refusals are counted one by one."""

_IN_FLIGHT_RETRY_SECONDS: Final = 0.1
# Of a clock's last digits nobody is refused.
_NOTHING: Final = 1e-9


class QuotaCounters:
    """How often tenants were refused: those refused longest ago are forgotten beyond so many."""

    def __init__(self, most: int = MOST_REFUSED) -> None:
        self._most = most
        self.refusals: OrderedDict[str, int] = OrderedDict()

    def count(self, tenant: str) -> None:
        """Count a refusal."""
        self.refusals[tenant] = self.refusals.get(tenant, 0) + 1
        self.refusals.move_to_end(tenant)
        if len(self.refusals) > self._most:
            self.refusals.popitem(last=False)


class Tenant:
    """What is known of a tenant."""

    __slots__ = ("full_at", "in_flight", "name")

    def __init__(self, name: str, full_at: float) -> None:
        self.name = name
        self.full_at = full_at
        """When the bucket is full again, on the monotonic clock; in the past: it is."""
        self.in_flight = 0


class Quotas:
    """Lets calls in. Belongs to one event loop.

    Args:
        limits: of every tenant that has none of its own.
        most_tenants: how many idle ones are remembered.
        clock: tells seconds.
    """

    def __init__(
        self, limits: Limits, *, most_tenants: int = MOST_TENANTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.counters = QuotaCounters()
        self._limits = limits
        self._most_tenants = most_tenants
        self._clock = clock
        self._busy: dict[str, Tenant] = {}
        self._idle: OrderedDict[str, Tenant] = OrderedDict()
        """Those that asked longest ago first."""
        self._forgotten_full_at = 0.0
        """The latest time at which a bucket that is forgotten was to be full: any newcomer may be its owner."""

    def enter(self, identity: Identity, model_id: str, documents: int) -> Tenant | None:
        """Let a call of so many documents in; what comes back is to be given to :meth:`leave`.

        Args:
            identity: makes the call.
            model_id: the model that is asked, which counts where everybody may call; in any version.
            documents: of that tenant in this call.

        Raises:
            QuotaExceeded: its tenant asks for more than it may.
        """
        if identity is ANYBODY:
            name, _, _ = model_id.partition(VERSION_MARK)
            limits = self._limits
        else:
            name = identity.name
            limits = self._limits if identity.limits is None else identity.limits
        if not (limits.requests_per_second or limits.in_flight):
            return None
        now = self._clock()
        tenant = self._busy.get(name)
        if tenant is None:
            tenant = self._idle.pop(name, None) or Tenant(name, self._full_at_first(limits, now))
            self._busy[name] = tenant
        try:
            _take(tenant, limits, documents, now)
        except QuotaExceeded:
            self.counters.count(name)
            if not tenant.in_flight:
                self._rest(tenant)
            raise
        tenant.in_flight += 1
        return tenant

    def enter_batch(
        self, identity: Identity, model_ids: Mapping[int, str]
    ) -> tuple[list[Tenant], Mapping[int, QuotaExceeded]]:
        """Let in the queries of a batch; return whom to :meth:`leave`, and the queries that are refused, by place.

        Args:
            identity: makes the call.
            model_ids: that are asked, by the query's place in the batch.

        Raises:
            QuotaExceeded: the identity asks for more than it may; then all are refused.
        """
        if identity is not ANYBODY:
            tenant = self.enter(identity, "", len(model_ids))
            return ([] if tenant is None else [tenant]), {}
        members_of: dict[str, list[int]] = defaultdict(list)
        for index, model_id in model_ids.items():
            members_of[model_id.partition(VERSION_MARK)[0]].append(index)
        entered: list[Tenant] = []
        refused: dict[int, QuotaExceeded] = {}
        for name, members in members_of.items():
            try:
                tenant = self.enter(identity, name, len(members))
            except QuotaExceeded as error:
                refused.update(dict.fromkeys(members, error))
            else:
                if tenant is not None:
                    entered.append(tenant)
        return entered, refused

    def leave(self, tenant: Tenant) -> None:
        """Let the place of a call go."""
        tenant.in_flight -= 1
        if not tenant.in_flight:
            self._rest(tenant)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def _full_at_first(self, limits: Limits, now: float) -> float:
        """Return when the bucket of a tenant that is not known is full: it may have been forgotten a moment ago."""
        rate = limits.requests_per_second
        return min(self._forgotten_full_at, now + limits.most_at_once / rate) if rate else now

    def _rest(self, tenant: Tenant) -> None:
        del self._busy[tenant.name]
        self._idle[tenant.name] = tenant
        if len(self._idle) > self._most_tenants:
            _, forgotten = self._idle.popitem(last=False)
            self._forgotten_full_at = max(self._forgotten_full_at, forgotten.full_at)


def _take(tenant: Tenant, limits: Limits, documents: int, now: float) -> None:
    """Take the documents out of the tenant's bucket, or raise QuotaExceeded and change nothing."""
    if limits.in_flight and tenant.in_flight >= limits.in_flight:
        raise QuotaExceeded(
            f"the quota of {limits.in_flight} calls at the same time is used up; try again when one has ended",
            _IN_FLIGHT_RETRY_SECONDS,
        )
    rate = limits.requests_per_second
    if not rate:
        return
    until_full = max(tenant.full_at - now, 0.0)
    most = limits.most_at_once
    wait = until_full - (most - min(documents, most)) / rate
    if wait > _NOTHING:
        raise QuotaExceeded(
            f"the quota of {rate:g} requests a second is used up; try again in {wait:.3f} seconds", wait
        )
    tenant.full_at = now + until_full + documents / rate
