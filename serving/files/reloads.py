"""Counts of configuration reloads that failed while the service runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

ReloadedFile = Literal["access", "certificate"]


class ReloadFailures:
    """Counters that only grow."""

    def __init__(self) -> None:
        self.counts: dict[ReloadedFile, int] = {"access": 0, "certificate": 0}

    def count(self, file: ReloadedFile) -> None:
        """Count one failure; the previous contents stay in force."""
        self.counts[file] += 1


RELOAD_FAILURES: Final = ReloadFailures()
"""Failures in this process, counted process-wide like its memory and garbage.

Several components count here, and one metric reports all failures.
"""


class ReloadFailureCollector(Collector):
    """Reports the failures as a metric."""

    def collect(self) -> Iterator[Metric]:
        """Return the current value of the metric. Called in any thread."""
        failures = CounterMetricFamily(
            "intent_configuration_reload_failures",
            "Changed configuration files that could not be loaded; the previous contents stay in force.",
            labels=["file"],
        )
        for file, count in RELOAD_FAILURES.counts.items():
            failures.add_metric([file], count)
        yield failures
