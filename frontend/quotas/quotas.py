"""Quotas: the documents that each tenant may ask for in a second, and its calls at the same time.

A tenant is an identity, or, where everybody may call, the name of a model. What each has asked, a ledger knows: one of
this process, or one that all workers of a frontend share.
"""

from __future__ import annotations

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
"""Tenants whose refusals are counted one by one."""


class QuotaCounters:
    """Refusals of tenants; those refused longest ago are forgotten beyond so many."""

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
        limits: of every tenant that has none of its own.
        ledger: knows how much each tenant has asked.
    """

    def __init__(self, limits: Limits, ledger: Ledger) -> None:
        self.counters = QuotaCounters()
        self._limits = limits
        self._ledger = ledger

    def enter(self, identity: Identity, model_id: str, documents: int) -> Tenant | None:
        """Admit a call of so many documents; what comes back is to be given to :meth:`leave`.

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
        try:
            return self._ledger.enter(name, limits, documents)
        except QuotaExceeded:
            self.counters.count(name)
            raise

    def enter_batch(
        self, identity: Identity, model_ids: Mapping[int, str]
    ) -> tuple[list[Tenant], Mapping[int, QuotaExceeded]]:
        """Admit the queries of a batch; return whom to :meth:`leave`, and the refused queries by their place.

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
        """Give the slot of a call back."""
        tenant.leave()
