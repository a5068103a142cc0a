"""Prometheus metrics of refused callers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.call.counters import AccessCounters


class AccessCollector(Collector):
    """Collects the access counters.

    Args:
        counters: the counters, read at every scrape.
    """

    def __init__(self, counters: AccessCounters) -> None:
        self._counters = counters

    def collect(self) -> Iterator[Metric]:
        """Return the current value of every metric. Called in any thread."""
        failures = CounterMetricFamily(
            "intent_authentication_failures", "Calls whose credential did not identify the caller.", labels=["reason"]
        )
        for reason, count in self._counters.failures.items():
            failures.add_metric([reason], count)
        yield failures
        yield CounterMetricFamily(
            "intent_permission_denied",
            "Calls, and queries in batches, that callers had no right to make.",
            value=self._counters.denied,
        )
