"""Metrics of the steps of pipelines."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from frontend.pipelines.counts import StepCounts


class StepCollector(Collector):
    """Collector of the counts of steps.

    Args:
        counts: the counts to report.
        steps: maximum number of steps that are reported; those of the pipelines that were asked last are chosen.
    """

    def __init__(self, counts: StepCounts, steps: int) -> None:
        self._counts = counts
        self._steps = steps

    def collect(self) -> Iterator[Metric]:
        """Return every metric with its current value. May be called in any thread."""
        documents = CounterMetricFamily(
            "intent_pipeline_step_documents",
            "Documents by pipeline, step, and what became of them at the step.",
            labels=["model", "step", "onward"],
        )
        seconds = HistogramMetricFamily(
            "intent_pipeline_step_seconds", "Time that a step of a pipeline takes.", labels=["model", "step"]
        )
        left = self._steps
        for model, steps in self._counts.of_pipelines():
            for name, count in steps.items():
                left -= 1
                if left < 0:
                    break
                for onward, number in count.onward.copy().items():
                    documents.add_metric([model, name, onward], number)
                count.seconds.add_to(seconds, [model, name])
        yield documents
        yield seconds
