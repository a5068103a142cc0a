"""A histogram of plain numbers: every call pays for counting, and only a scrape pays for reporting."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily


class Histogram:
    """Counts values by bucket. One thread at a time may write; any thread may read.

    Args:
        bounds: largest value of each bucket, in ascending order; one further bucket takes larger values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = [*bounds]
        self.counts = [0] * (len(bounds) + 1)
        """Number of values in each bucket; not cumulative."""
        self.total = 0.0
        """Sum of all values."""

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = (), *, unit: float = 1.0) -> None:
        """Add the counts to a metric.

        Args:
            family: the metric.
            labels: values of the metric's labels.
            unit: factor from this histogram's unit to the metric's: 1000 where seconds are reported as milliseconds.
        """
        # Counting continues meanwhile; counts that are copied once are consistent with each other.
        total, counts = self.total, [*self.counts]
        names = [*(f"{bound * unit:g}" for bound in self.bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), total * unit)
