"""Metrics of the refusals of tenants that exceed their quotas."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.quotas.quotas import QuotaCounters


class QuotaCollector(Collector):
    """Collector of the refusals of each tenant.

    Args:
        counters: read at every scrape.
        tenants: maximum number of tenants with a series of their own; the most often refused are chosen.
    """

    def __init__(self, counters: QuotaCounters, tenants: int) -> None:
        self._counters = counters
        self._tenants = tenants

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its current value. May be called in any thread."""
        refusals = CounterMetricFamily(
            "intent_quota_refusals", "Calls, and queries in batches, that exceeded a tenant's quota.", labels=["tenant"]
        )
        # Copied in one step: the event loop continues to count.
        counted = self._counters.refusals.copy()
        for tenant, count in heapq.nlargest(self._tenants, counted.items(), key=lambda item: item[1]):
            refusals.add_metric([tenant], count)
        yield refusals
