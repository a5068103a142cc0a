"""Quotas: the documents per second and the concurrent calls that each tenant may have.

A tenant is an identity or, if no access is configured, the name of a model. A ledger records each tenant's usage,
either for this process or for all workers of a frontend.
"""

from __future__ import annotations

import math
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Final

from frontend.quotas.ledger import Ledger, Tenant
from serving.call.identity import ANYBODY, Identity
from serving.call.limits import Limits
from serving.domain.errors import QuotaExceeded
from serving.domain.model_id import VERSION_MARK

__all__ = ["MOST_REFUSED", "QuotaCounters", "Quotas", "Tenant"]

MOST_REFUSED: Final = 4096
"""Maximum number of tenants whose refusals are counted individually."""


class QuotaCounters:
    """Refusals by tenant. Beyond ``most`` tenants, those refused longest ago are forgotten."""

    def __init__(self, most: int = MOST_REFUSED) -> None:
        self._most = most
        self.refusals: OrderedDict[str, int] = OrderedDict()

    def count(self, tenant: str) -> None:
        """Count a refusal."""
        self.refusals[tenant] = self.refusals.get(tenant, 0) + 1
        self.refusals.move_to_end(tenant)
        if len(self.refusals) > self._most:
            self.refusals.popitem(last=False)


class Quotas:
    """Admits calls. Belongs to one event loop.

    Args:
        limits: limits of every tenant that has none of its own.
        ledger: record of each tenant's usage.
    """

    def __init__(self, limits: Limits, ledger: Ledger) -> None:
        self.counters = QuotaCounters()
        self._limits = limits
        self._ledger = ledger

    def enter(self, identity: Identity, model_id: str, documents: int, *, is_inner: bool = False) -> Tenant | None:
        """Admit a call with the given number of documents; a returned tenant must be passed to :meth:`leave`.

        Args:
            identity: the caller.
            model_id: the requested model, in any version; its name is the tenant if no access is configured.
            documents: number of the tenant's documents in this call.
            is_inner: whether a pipeline asks within a call of the same caller, which was admitted already.

        Raises:
            QuotaExceeded: the call exceeds the tenant's limits.
        """
        if identity is ANYBODY:
            name, _, _ = model_id.partition(VERSION_MARK)
            limits = self._limits
        else:
            name = identity.name
            limits = self._limits if identity.limits is None else identity.limits
            if is_inner:
                # The caller's call was admitted, and holds its slot: its steps are counted, and the caller waits longer
                # before the next call. To refuse them would have callers with small quotas pay and never be answered.
                limits = Limits(limits.requests_per_second, math.inf)
        if not (limits.requests_per_second or limits.in_flight):
            return None
        try:
            tenant = self._ledger.enter(name, limits, documents)
        except QuotaExceeded:
            self.counters.count(name)
            raise
        if tenant is not None and is_inner and identity is not ANYBODY:
            # One slot of the caller is enough for all steps: otherwise a limit of one call would allow no pipeline.
            tenant.leave()
            return None
        return tenant

    def enter_batch(
        self, identity: Identity, model_ids: Mapping[int, str]
    ) -> tuple[list[Tenant], Mapping[int, QuotaExceeded]]:
        """Admit the queries of a batch; return the tenants to :meth:`leave`, and the refused queries by index.

        Args:
            identity: the caller.
            model_ids: requested models, by the query's index in the batch.

        Raises:
            QuotaExceeded: the batch exceeds the limits of the identity; all queries are refused then.
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
        """Release the slot of a call."""
        tenant.leave()
