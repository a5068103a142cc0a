"""The process of a service as metrics: what it is, and what it takes of its machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.domain.version import VERSION


class BuildCollector(Collector):
    """Collects which service this is, and of which version."""

    def __init__(self, service: str) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Return the metric. Called in any thread."""
        told = {"service": self._service, "version": VERSION}
        yield InfoMetricFamily("intent_build", "The service and its version.", value=told)


def process_collectors(service: str) -> Sequence[Collector]:
    """Return what metrics tell of this process, which is the service named ``service``."""
    # A registry it needs to be made; which one asks it is not its business.
    garbage = GCCollector(CollectorRegistry(auto_describe=False))
    return [BuildCollector(service), ProcessCollector(registry=None), PlatformCollector(registry=None), garbage]
