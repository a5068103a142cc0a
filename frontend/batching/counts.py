"""What is counted of queries on their way to the engines. Every query pays for it, so it does the least it can."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Protocol

from frontend.batching.model_times import ModelTimes
from serving.domain.prediction import Query
from serving.telemetry.busiest import BusiestCounts
from serving.telemetry.histogram import Histogram

QUEUE_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds of how long a query may wait to be sent, in seconds."""

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counted(Protocol):
    """A query that has waited."""

    query: Query
    arrival: float
    """As :meth:`QueryCounts.came` has told it."""


class QueryCounts:
    """Counts over all engines of a frontend. Belongs to one event loop; read by any thread.

    Args:
        times: counts by model what Triton counts, where that is wanted.
    """

    __slots__ = ("_came", "_went", "models", "queue_seconds", "sizes", "times")

    def __init__(self, times: ModelTimes | None = None) -> None:
        self.times = times
        self.models = BusiestCounts()
        """Queries by model."""
        self.queue_seconds = Histogram(QUEUE_SECONDS)
        """From a query's arrival to its being sent."""
        self.sizes = Histogram(BATCH_SIZES)
        """Queries of each batch that was sent."""
        self._came = 0
        self._went = 0

    @property
    def waiting(self) -> int:
        """Queries that wait to be sent; those whose callers have left count until their turn comes."""
        return self._came - self._went

    def asked(self, queries: Sequence[Query]) -> None:
        """Count queries that wait for nobody."""
        for query in queries:
            gone = self.models.count(query.model_id)
            if self.times is not None:
                self.times.keep(query.model_id, gone)

    def came(self, query: Query) -> float:
        """Count a query that waits now; return when that is, in seconds on a clock of its own."""
        self._came += 1
        model_id = query.model_id
        gone = self.models.count(model_id)
        if self.times is not None:
            self.times.keep(model_id, gone)
        return time.perf_counter()

    def went(self, queries: int) -> None:
        """Count queries that wait no more, be they sent or not."""
        self._went += queries

    def sent(self, batch: Sequence[Counted]) -> None:
        """Count a batch that is being sent."""
        now = time.perf_counter()
        seconds = self.queue_seconds
        bounds, counts = seconds.bounds, seconds.counts
        total = 0.0
        for member in batch:
            waited = now - member.arrival
            counts[bisect_left(bounds, waited)] += 1
            total += waited
        seconds.total += total
        self.sizes.observe(len(batch))
        if self.times is not None:
            for member in batch:
                times = self.times.get(member.query.model_id)
                if times is not None:
                    times.queue_seconds += now - member.arrival
