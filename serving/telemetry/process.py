"""Metrics of a service's process: its build, and its use of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from intent_serving_client.version import VERSION


class BuildCollector(Collector):
    """Collects the name and the version of the service."""

    def __init__(self, service: str) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Return the metric. Called in any thread."""
        values = {"service": self._service, "version": VERSION}
        yield InfoMetricFamily("intent_build", "The service and its version.", value=values)


def process_collectors(service: str) -> Sequence[Collector]:
    """Return the collectors of metrics of this process, which runs the service named ``service``."""
    # GCCollector needs a registry only to be created; any registry may collect from it.
    garbage = GCCollector(CollectorRegistry(auto_describe=False))
    return [BuildCollector(service), ProcessCollector(registry=None), PlatformCollector(registry=None), garbage]
