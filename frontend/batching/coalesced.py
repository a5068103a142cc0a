"""An engine behind coalescing, with the counters that metrics ask for."""

from __future__ import annotations

from frontend.batching.coalescing import CoalescingBackend, PredictNow
from frontend.batching.counts import QueryCounts
from frontend.batching.timed import TimedEngine, TimedRequests
from frontend.engines.backend import Backend, BatchingBackend, GroupOf
from frontend.engines.submission import SubmitBatch


def coalesced(
    backend: BatchingBackend,
    *,
    calls: int,
    group_of: GroupOf | None = None,
    counts: QueryCounts | None,
    predict_now: PredictNow | None = None,
    submit_batch: SubmitBatch | None = None,
) -> Backend:
    """Return ``backend`` behind coalescing, counted in ``counts``. The arguments are those of ``CoalescingBackend``."""
    times = None if counts is None else counts.times
    engine: BatchingBackend = backend
    if times is not None:
        engine = timed = TimedEngine(backend, times)
        predict_now = None if predict_now is None else timed.timed(predict_now)
        submit_batch = None if submit_batch is None else timed.timed_submission(submit_batch)
    coalescing = CoalescingBackend(
        engine, calls=calls, group_of=group_of, counts=counts, predict_now=predict_now, submit_batch=submit_batch
    )
    return coalescing if times is None else TimedRequests(coalescing, times)
