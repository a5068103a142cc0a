"""Metrics of the queries on their way to the engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.batching.counts import QueryCounts
from frontend.batching.model_times import ModelTimes
from serving.domain.model_id import ModelId, reference_of
from serving.telemetry.busiest import BusiestCounts

_MICROSECONDS: Final = 1e6


class QueryCollector(Collector):
    """Collector of the counts of queries.

    Args:
        counts: the counts to report.
        models: maximum number of models with metrics of their own; the busiest models are chosen.
    """

    def __init__(self, counts: QueryCounts, models: int) -> None:
        self._counts = counts
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its current value. May be called in any thread."""
        counts = self._counts
        seconds = HistogramMetricFamily("intent_queue_seconds", "Time that queries wait to be sent.", labels=())
        counts.queue_seconds.add_to(seconds)
        yield seconds
        yield GaugeMetricFamily("intent_queue_length", "Queries waiting to be sent.", value=counts.waiting)
        sizes = HistogramMetricFamily("intent_batch_size", "Number of queries in each batch that was sent.", labels=())
        counts.sizes.add_to(sizes)
        yield sizes
        requests = CounterMetricFamily(
            "intent_model_requests", "Queries by model, for the busiest models.", labels=["model"]
        )
        for model, count in counts.models.busiest(self._models):
            requests.add_metric([model], count)
        yield requests


class TritonCollector(Collector):
    """Collector of the counts of the busiest models, under the names that Triton's dashboards use.

    The names have no ``_total`` suffix, so the exposition declares them untyped; Prometheus accepts them as they are.

    Args:
        models: number of queries by model, which determines the busiest models.
        times: counters of each model.
        limit: maximum number of models that are reported.
    """

    def __init__(self, models: BusiestCounts, times: ModelTimes, limit: int) -> None:
        self._models = models
        self._times = times
        self._limit = limit

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its current value. May be called in any thread."""
        families = {
            name: Metric(name, meaning, "untyped")
            for name, meaning in (
                ("nv_inference_request_success", "Requests that were answered, for the busiest models."),
                ("nv_inference_request_failure", "Requests that were not answered, for the busiest models."),
                ("nv_inference_count", "Documents that were answered, for the busiest models."),
                ("nv_inference_exec_count", "Batches that were sent with queries for the busiest models."),
                (
                    "nv_inference_request_duration_us",
                    "Total duration of the requests that were answered, in microseconds.",
                ),
                ("nv_inference_queue_duration_us", "Total time that queries waited to be sent, in microseconds."),
                ("nv_inference_compute_infer_duration_us", "Total time of waiting for the engine, in microseconds."),
            )
        }
        for model_id, _ in self._models.busiest(self._limit):
            times = self._times.get(model_id)
            if times is None:
                continue
            model = reference_of(ModelId(model_id))
            labels = {"model": model.name, "version": model.selector or times.version}
            for reason, count in times.failures.items():
                name = "nv_inference_request_failure"
                families[name].add_sample(name, {**labels, "reason": reason}, count)
            for name, value in (
                ("nv_inference_request_success", times.successes),
                ("nv_inference_count", times.documents),
                ("nv_inference_exec_count", times.executions),
                ("nv_inference_request_duration_us", round(times.request_seconds * _MICROSECONDS)),
                ("nv_inference_queue_duration_us", round(times.queue_seconds * _MICROSECONDS)),
                ("nv_inference_compute_infer_duration_us", round(times.engine_seconds * _MICROSECONDS)),
            ):
                families[name].add_sample(name, labels, value)
        yield from families.values()
