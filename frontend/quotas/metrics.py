"""Refusals of tenants beyond their quotas, as metrics."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.quotas.quotas import QuotaCounters


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
