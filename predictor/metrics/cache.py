"""Metrics of the model manager: its loads and evictions, and the models that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.inference.engine import InferenceEngine
from serving.telemetry.histogram import Histogram

_COUNTS: Final = {
    "intent_cache_hits": ("hits", "Requests for a model in memory."),
    "intent_cache_misses": ("misses", "Requests for a model that was not in memory."),
    "intent_cache_loads": ("loads", "Models loaded, including replacements."),
    "intent_cache_evictions": ("evictions", "Models evicted to make room for others."),
    "intent_replacements_refused": (
        "replacements_refused",
        "New copies that were refused because they are not valid; the copy in memory keeps serving.",
    ),
}
"""Each counter, with its name in :class:`~predictor.cache.statistics.CacheStatistics`."""

_HISTOGRAMS: Final = {
    "intent_cache_miss_seconds": ("miss_seconds", "Time that requests waited for a model that was not in memory."),
    "intent_cache_load_wait_seconds": ("load_wait_seconds", "Time that loads waited for other loads."),
    "intent_cache_load_seconds": ("load_seconds", "Time that loads took, without waits."),
    "intent_cache_eviction_age_seconds": (
        "eviction_age_seconds",
        "Time since the last use of models that were evicted.",
    ),
}
"""Each histogram, with its name in the same class."""

_WATCHED: Final = dict.fromkeys(
    ("forbidden_pickle", "checksum_mismatch", "invalid_model_file", "volume_unavailable"), 0
)
"""Reasons that are reported as 0 before they occur, so that Prometheus sees the first failure as an increase."""


class CacheCollector(Collector):
    """Collects the memory use and the counters of the models in memory."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine
        self._residents = engine.residency()

    def collect(self) -> Iterator[Metric]:
        """Return the current value of every metric. Called in any thread."""
        residents, counted = self._residents, self._residents.statistics
        for name, (field, meaning) in _COUNTS.items():
            yield CounterMetricFamily(name, meaning, value=getattr(counted, field))
        failures = CounterMetricFamily(
            "intent_cache_failures", "Failed loads, and failed answers of loaded models.", labels=["reason"]
        )
        for reason, count in {**_WATCHED, **dict(counted.failures)}.items():
            failures.add_metric([reason], count)
        yield failures
        for name, (field, meaning) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(name, meaning, labels=())
            histogram: Histogram = getattr(counted, field)
            histogram.add_to(family)
            yield family
        yield GaugeMetricFamily(
            "intent_cache_bytes",
            "Bytes of models in memory, of models being loaded, and of removed models that are still in use.",
            value=residents.bytes_held,
        )
        yield GaugeMetricFamily(
            "intent_cache_budget_bytes", "Maximum number of bytes for models.", value=residents.budget
        )
        yield GaugeMetricFamily("intent_cache_models", "Models in memory.", value=len(residents))
        yield GaugeMetricFamily(
            "intent_cache_loads_waiting",
            "Models waiting to be loaded, or being loaded.",
            value=self._engine.loads_waiting(),
        )
