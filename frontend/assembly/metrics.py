"""From settings to the metrics of queries."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.registry import Collector

from frontend.batching.counts import QueryCounts
from frontend.batching.model_times import ModelTimes
from frontend.batching.query_metrics import QueryCollector, TritonCollector
from serving.runtime.settings import ServerSettings
from serving.telemetry.dialects import MODELMESH, TRITON
from serving.telemetry.modelmesh import Milliseconds


def query_counts(settings: ServerSettings) -> QueryCounts | None:
    """Return the counters of queries; ``None`` if the settings disable metrics."""
    if not settings.metrics_port:
        return None
    return QueryCounts(ModelTimes() if TRITON in settings.names_of_metrics() else None)


def collectors_of(counts: QueryCounts | None, settings: ServerSettings) -> Sequence[Collector]:
    """Return the collectors that report ``counts``; empty if ``counts`` is ``None``."""
    if counts is None:
        return []
    collectors: list[Collector] = [QueryCollector(counts, settings.metrics_models)]
    if MODELMESH in settings.names_of_metrics():
        meaning = "Time that queries wait to be sent."
        collectors.append(Milliseconds("modelmesh_req_queue_delay_milliseconds", meaning, counts.queue_seconds))
    if counts.times is not None:
        collectors.append(TritonCollector(counts.models, counts.times, settings.metrics_models))
    return collectors
