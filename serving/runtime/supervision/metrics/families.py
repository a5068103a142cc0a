"""Metrics in transit from a worker to its supervisor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

Labels: TypeAlias = dict[str, str]


class Family(NamedTuple):
    """One metric with its samples."""

    name: str
    kind: str
    """Type, as the client library calls it."""
    meaning: str
    samples: Sequence[tuple[str, Labels, float]]
    """Name, labels and value of each sample."""

    def as_metric(self) -> Metric:
        """Return the family as a metric of the client library, for an exposition."""
        metric = Metric(self.name, self.meaning, self.kind)
        for name, labels, value in self.samples:
            metric.add_sample(name, labels, value)
        return metric


def collected(collectors: Iterable[Collector]) -> list[Family]:
    """Return what ``collectors`` export now, in types that JSON can represent. Called in any thread."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [(sample.name, sample.labels, sample.value) for sample in metric.samples],
        )
        for collector in collectors
        for metric in collector.collect()
    ]


def received(families: Iterable[Sequence[Any]]) -> list[Family]:
    """Return the families of a received message."""
    return [Family(*family) for family in families]
