"""Metrics of all workers, exported by their supervisor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.runtime.supervision.metrics.families import Family, collected
from serving.runtime.supervision.metrics.rules import WORKER_LABEL

SUPERVISOR: Final = "supervisor"
"""Value of the label ``worker`` for the supervisor's own process."""


class WorkersCollector(Collector):
    """Collects the metrics of all workers, and those of their supervision.

    Args:
        scrape: returns the metrics of the workers; runs on the event loop that creates this collector.
        serving: returns how many workers serve.
        restarts: returns how many workers have replaced one that ended.
        patience: time that all workers together may take, in seconds.
    """

    def __init__(
        self,
        scrape: Callable[[], Awaitable[Sequence[Family]]],
        serving: Callable[[], int],
        restarts: Callable[[], int],
        patience: float,
    ) -> None:
        self._scrape = scrape
        self._serving = serving
        self._restarts = restarts
        self._patience = patience
        self._loop = asyncio.get_running_loop()

    def collect(self) -> Iterator[Metric]:
        """Return every metric as it is now. Called in any thread except that of the event loop."""
        families = asyncio.run_coroutine_threadsafe(self._scraped(), self._loop).result(self._patience)
        own = {family.name: family for family in collected([ProcessCollector(registry=None)])}
        for family in families:
            metric = family.as_metric()
            beside = own.pop(family.name, None)
            for name, labels, value in () if beside is None else beside.samples:
                metric.add_sample(name, {**labels, WORKER_LABEL: SUPERVISOR}, value)
            yield metric
        yield GaugeMetricFamily("intent_workers", "Workers that are serving.", value=self._serving())
        yield CounterMetricFamily(
            "intent_worker_restarts", "Workers started in place of one that ended.", value=self._restarts()
        )

    async def _scraped(self) -> Sequence[Family]:
        return await self._scrape()
