"""A histogram of plain numbers: what counting costs, every call pays; what telling costs, a scrape does."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily


class Histogram:
    """Counts values by the bounds they are within. Written by one thread at a time, read by any.

    Args:
        bounds: the largest value of each bucket, in ascending order; one more takes what is above them.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = [*bounds]
        self.counts = [0] * (len(bounds) + 1)
        """How many values each bucket has, those of smaller ones not included."""
        self.total = 0.0
        """Of all values together."""

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = (), *, unit: float = 1.0) -> None:
        """Add what was counted to a metric.

        Args:
            family: the metric.
            labels: the values of its labels.
            unit: what one of it is in the metric's unit: 1000 where seconds are told as milliseconds.
        """
        # Counts go on meanwhile: taken once, they fit each other.
        total, counts = self.total, [*self.counts]
        names = [*(f"{bound * unit:g}" for bound in self.bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(counts), strict=True)), total * unit)
