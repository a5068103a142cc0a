"""Metrics of the queries of models and their answers.

A Prometheus counter may only grow: Prometheus mistakes a counter that falls for a restart, and its whole value for an
increase. So no metric sums "the others": a model that becomes one of the busiest would leave that sum. The totals of
all models have separate metrics, and the figures of the others are the difference.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from predictor.inference.traffic_registry import CountedModel, TrafficRegistry
from predictor.model.traffic_counter import TrafficTotals
from serving.domain.answer_counts import CONFIDENCE_BINS, AnswerCounts
from serving.domain.drift import Verdict, drift_of

_LABELS: Final = 10
_BOUNDS: Final = (*(f"{number / CONFIDENCE_BINS:g}" for number in range(1, CONFIDENCE_BINS)), "+Inf")
_VERDICTS: Final = {Verdict.NONE: 0, Verdict.SOME: 1, Verdict.STRONG: 2}

_COUNTS: Final = {
    "documents": "Documents that were answered",
    "empty_documents": "Documents without any token that the model knows",
    "tokens": "Tokens of the documents, without n-grams",
    "unknown_tokens": "Tokens that the vocabulary does not have",
    "fallbacks": "Answers whose best label was below the threshold",
}
"""Counts and their meanings, by their names in :class:`AnswerCounts` and :class:`TrafficTotals`."""


class TrafficCollector(Collector):
    """Collects the counts of a registry.

    Args:
        registry: source of the counts.
        models: number of models with metrics of their own: those with the most answers.
    """

    def __init__(self, registry: TrafficRegistry, models: int) -> None:
        self._registry = registry
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Return the current value of every metric. Called in any thread."""
        yield from _of_all(self._registry.totals())
        if self._models:
            yield from _of_each(self._registry.busiest(self._models))


def _of_all(totals: TrafficTotals) -> Iterator[Metric]:
    for name, meaning in _COUNTS.items():
        yield CounterMetricFamily(f"intent_{name}", f"{meaning}, for all models together.", value=getattr(totals, name))
    yield HistogramMetricFamily(
        "intent_confidence",
        "Scores of the best labels, for all models together.",
        buckets=_buckets(totals.confidence),
        sum_value=totals.scores,
    )


def _of_each(listed: Sequence[CountedModel]) -> Iterable[Metric]:
    counters = {
        name: CounterMetricFamily(f"intent_model_{name}", f"{meaning}, for the busiest models.", labels=["model"])
        for name, meaning in _COUNTS.items()
    }
    confidence = HistogramMetricFamily(
        "intent_model_confidence", "Scores of the best labels, for the busiest models.", labels=["model"]
    )
    labels = CounterMetricFamily(
        "intent_model_labels",
        f"Answers by best label, for the {_LABELS} most frequent labels of the busiest models.",
        labels=["model", "label"],
    )
    drift = GaugeMetricFamily(
        "intent_model_drift",
        "Change since validation: differences of shares, and population stability indexes of histograms.",
        labels=["model", "signal"],
    )
    verdict = GaugeMetricFamily(
        "intent_model_drift_verdict", "Drift of each signal: 0 none, 1 some, 2 strong.", labels=["model", "signal"]
    )
    for counted in listed:
        traffic, scores = counted.counter.snapshot_with_scores()
        model = counted.model_id
        for name, counter in counters.items():
            counter.add_metric([model], getattr(traffic, name))
        confidence.add_metric([model], _buckets(traffic.confidence), scores)
        for label, count in heapq.nlargest(_LABELS, traffic.labels.items(), key=lambda item: item[1]):
            labels.add_metric([model, label], count)
        _add_drift(model, traffic, counted.baseline, drift, verdict)
    return (*counters.values(), confidence, labels, drift, verdict)


def _add_drift(
    model: str,
    traffic: AnswerCounts,
    baseline: AnswerCounts | None,
    drift: GaugeMetricFamily,
    verdict: GaugeMetricFamily,
) -> None:
    if baseline is None:
        return
    for signal in drift_of(traffic, baseline).signals:
        if signal.verdict in _VERDICTS:
            drift.add_metric([model, signal.name], signal.change)
            verdict.add_metric([model, signal.name], _VERDICTS[signal.verdict])


def _buckets(confidence: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(_BOUNDS, accumulate(confidence), strict=True))
