"""Metrics of the model manager under the names that ModelMesh's dashboards use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.inference.engine import InferenceEngine
from serving.telemetry.modelmesh import Milliseconds

_BASIS_POINTS: Final = 10_000


def modelmesh_collectors(engine: InferenceEngine) -> Sequence[Collector]:
    """Return the collectors of the figures of the models in memory."""
    counted = engine.residency().statistics
    return [
        InstanceCollector(engine),
        Milliseconds(
            "modelmesh_cache_miss_milliseconds",
            "Time that requests waited for a model that was not in memory.",
            counted.miss_seconds,
        ),
        Milliseconds("modelmesh_loadmodel_milliseconds", "Time that loads took.", counted.load_seconds),
        Milliseconds(
            "modelmesh_loading_queue_delay_milliseconds",
            "Time that loads waited for other loads.",
            counted.load_wait_seconds,
        ),
        Milliseconds(
            "modelmesh_age_at_eviction_milliseconds",
            "Time since the last use of models that were evicted.",
            counted.eviction_age_seconds,
        ),
    ]


class InstanceCollector(Collector):
    """Collects the figures of this predictor. ModelMesh reports some once for all replicas; here each replica does."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._residents = engine.residency()

    def collect(self) -> Iterator[Metric]:
        """Return the current value of every metric. Called in any thread."""
        residents = self._residents
        used, capacity, models = residents.bytes_held, residents.budget, len(residents)
        for name, meaning, value in (
            ("modelmesh_models_loaded_total", "Models in memory.", models),
            ("modelmesh_instance_models_total", "Models in memory.", models),
            ("modelmesh_instance_capacity_bytes", "Maximum number of bytes for models in memory.", capacity),
            ("modelmesh_instance_used_bytes", "Bytes of models in memory.", used),
            (
                "modelmesh_instance_used_bps",
                "Share of the memory for models that is in use, in hundredths of a percent.",
                used * _BASIS_POINTS // capacity,
            ),
        ):
            yield GaugeMetricFamily(name, meaning, value=value)
        # The client library appends _total to the names of counters; ModelMesh's name lacks it.
        failures = Metric("modelmesh_loadmodel_failure", "Failed loads.", "untyped")
        failures.add_sample("modelmesh_loadmodel_failure", {}, residents.statistics.load_failures)
        yield failures
