"""How often a part of the configuration that is read while the service runs could not be read again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

ReloadedFile = Literal["access", "certificate"]


class ReloadFailures:
    """Plain numbers that only grow."""

    def __init__(self) -> None:
        self.counts: dict[ReloadedFile, int] = {"access": 0, "certificate": 0}

    def count(self, file: ReloadedFile) -> None:
        """Count one: what was in force before stays so."""
        self.counts[file] += 1


RELOAD_FAILURES: Final = ReloadFailures()
"""Of this process, as its memory and its garbage are: several parts count here, and one metric tells of them all."""


class ReloadFailureCollector(Collector):
    """Tells them as a metric."""

    def collect(self) -> Iterator[Metric]:
        """Return the metric as it is now. Called in any thread."""
        failures = CounterMetricFamily(
            "intent_configuration_reload_failures",
            "Files of the configuration that changed and could not be taken; the former contents stay in force.",
            labels=["file"],
        )
        for file, count in RELOAD_FAILURES.counts.items():
            failures.add_metric([file], count)
        yield failures
