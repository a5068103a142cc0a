"""What the process may take of the machine's memory, as a metric."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.cache.memory import memory_limit


class MemoryLimitCollector(Collector):
    """Collects the limit: that of the cgroup, else all that the machine has. It is read at every scrape."""

    def collect(self) -> Iterator[Metric]:
        """Return the metric. Called in any thread."""
        yield GaugeMetricFamily(
            "intent_memory_limit_bytes", "Bytes that the process may take before it is killed.", value=memory_limit()
        )
