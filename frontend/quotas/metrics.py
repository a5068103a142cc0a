"""Quotas as settings ask for them, and how often tenants were refused, as Prometheus sees it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.quotas.ledger import Ledger
from frontend.quotas.local import LocalLedger
from frontend.quotas.quotas import QuotaCounters, Quotas
from frontend.quotas.shared import Place, SharedLedger
from frontend.settings import EngineSettings
from serving.call.limits import NO_LIMITS


class QuotaCollector(Collector):
    """Collects what was counted.

    Args:
        counters: read at every scrape.
        tenants: how many have a series of their own: those that were refused most often.
    """

    def __init__(self, counters: QuotaCounters, tenants: int) -> None:
        self._counters = counters
        self._tenants = tenants

    def collect(self) -> Iterator[Metric]:
        """Return every metric as it is now. Called in any thread."""
        refusals = CounterMetricFamily(
            "intent_quota_refusals", "Calls, and queries of batches, beyond a tenant's quota.", labels=["tenant"]
        )
        # Copied in one step: the event loop goes on counting.
        counted = self._counters.refusals.copy()
        for tenant, count in heapq.nlargest(self._tenants, counted.items(), key=lambda item: item[1]):
            refusals.add_metric([tenant], count)
        yield refusals


def quotas_of(settings: EngineSettings) -> Quotas | None:
    """Return the quotas; ``None`` where nobody has one, and no identity may have one of its own."""
    limits = settings.tenant_limits()
    return None if limits == NO_LIMITS and settings.access_file is None else Quotas(limits, _ledger_of(settings))


def quota_collectors(quotas: Quotas | None, settings: EngineSettings) -> Sequence[Collector]:
    """Return what metrics tell of quotas."""
    counters = QuotaCounters() if quotas is None else quotas.counters
    return [QuotaCollector(counters, settings.metrics_models)]


def _ledger_of(settings: EngineSettings) -> Ledger:
    membership = settings.membership
    if membership is None:
        return LocalLedger()
    place = Place(membership.index, membership.workers, membership.board.generations)
    return SharedLedger(membership.memory, place)
