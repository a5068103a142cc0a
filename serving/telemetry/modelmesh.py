"""Metrics with the names and the unit that ModelMesh's dashboards expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.calls import CallTimes
from serving.telemetry.histogram import Histogram

_MILLISECONDS: Final = 1000.0
_INTERNAL: Final = "Predictor/"
_INFERENCE: Final = frozenset(
    {
        "PredictionService/Predict",
        "PredictionService/PredictBatch",
        "PredictionService/Explain",
        "GRPCInferenceService/ModelInfer",
        "POST /v2/models/{model}/infer",
        "POST /v2/models/{model}/versions/{version}/infer",
        "Predictor/PredictorPredict",
        "Predictor/PredictorPredictBatch",
        "Predictor/PredictorExplain",
    }
)
"""Methods of inference calls; ModelMesh reports no others."""


class Milliseconds(Collector):
    """Collects a histogram of seconds as one of milliseconds."""

    def __init__(self, name: str, meaning: str, seconds: Histogram) -> None:
        self._name = name
        self._meaning = meaning
        self._seconds = seconds

    def collect(self) -> Iterator[Metric]:
        """Return the current value of the metric. Called in any thread."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=())
        self._seconds.add_to(family, unit=_MILLISECONDS)
        yield family


class InferenceCalls(Collector):
    """Collects inference calls: those of callers, and those of a frontend to a predictor."""

    def __init__(self, times: CallTimes) -> None:
        self._times = times

    def collect(self) -> Iterator[Metric]:
        """Return the current values of both metrics. Called in any thread."""
        labels = ["method", "code"]
        external = HistogramMetricFamily(
            "modelmesh_api_request_milliseconds", "Inference requests from callers.", labels=labels
        )
        internal = HistogramMetricFamily(
            "modelmesh_invoke_model_milliseconds", "Inference requests from frontends to a predictor.", labels=labels
        )
        for method, code, histogram in self._times.ends():
            if method in _INFERENCE:
                family = internal if method.startswith(_INTERNAL) else external
                histogram.add_to(family, [method, code], unit=_MILLISECONDS)
        yield from (family for family in (external, internal) if family.samples)
