"""Metric of the memory limit of the process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.cache.memory import memory_limit


class MemoryLimitCollector(Collector):
    """Collects the memory limit: the cgroup's, else all of the machine's memory. The limit is read at every scrape."""

    def collect(self) -> Iterator[Metric]:
        """Return the metric. Called in any thread."""
        yield GaugeMetricFamily(
            "intent_memory_limit_bytes", "Bytes of memory beyond which the process is killed.", value=memory_limit()
        )
