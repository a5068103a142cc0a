"""Counts of queries on their way to the engines. Every query pays for the counting, so it is kept minimal."""

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
"""Histogram bounds of the time that a query waits to be sent, in seconds."""

BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Counted(Protocol):
    """A query that has waited."""

    query: Query
    arrival: float
    """Time of arrival, as returned by :meth:`QueryCounts.came`."""


class QueryCounts:
    """Counts over all engines of a frontend. Belongs to one event loop; any thread may read them.

    Args:
        times: Triton's counters by model; ``None`` if they are not wanted.
    """

    __slots__ = ("_came", "_went", "models", "queue_seconds", "sizes", "times")

    def __init__(self, times: ModelTimes | None = None) -> None:
        self.times = times
        self.models = BusiestCounts()
        """Number of queries by model."""
        self.queue_seconds = Histogram(QUEUE_SECONDS)
        """Time from the arrival of a query until it is sent, in seconds."""
        self.sizes = Histogram(BATCH_SIZES)
        """Number of queries in each batch that was sent."""
        self._came = 0
        self._went = 0

    @property
    def waiting(self) -> int:
        """Number of queries that wait to be sent; a query that was withdrawn counts until its turn comes."""
        return self._came - self._went

    def sent_at_once(self, queries: Sequence[Query]) -> None:
        """Count queries that are sent without waiting."""
        for query in queries:
            evicted = self.models.count(query.model_id)
            if self.times is not None:
                self.times.keep(query.model_id, evicted)

    def came(self, query: Query) -> float:
        """Count a query that starts waiting; return its arrival time, in seconds of ``time.perf_counter``."""
        self._came += 1
        model_id = query.model_id
        evicted = self.models.count(model_id)
        if self.times is not None:
            self.times.keep(model_id, evicted)
        return time.perf_counter()

    def went(self, queries: int) -> None:
        """Count queries that no longer wait, whether they are sent or not."""
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
