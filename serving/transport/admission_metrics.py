"""Metrics of an admission: refused calls, waiting calls and limits."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.telemetry.calls import without_package
from serving.transport.admission import Admission


class AdmissionCollector(Collector):
    """Collects the metrics of ``admission``."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def collect(self) -> Iterator[Metric]:
        """Return every metric as it is now. Called in any thread."""
        refusals = self._admission.refusals
        refused = CounterMetricFamily(
            "intent_requests_refused", "Calls refused before any work was done for them.", labels=["reason"]
        )
        refused.add_metric(["overload"], refusals.overload)
        refused.add_metric(["deadline"], refusals.deadline)
        refused.add_metric(["quota"], refusals.quota)
        yield refused
        yield GaugeMetricFamily("intent_requests_waiting", "Calls waiting to be served.", value=self._admission.waiting)
        limit = GaugeMetricFamily(
            "intent_concurrency_limit",
            "Calls that may be served at the same time.",
            labels=["method"],
        )
        for method, gate in self._admission.gates.copy().items():
            limit.add_metric([without_package(method)], gate.limit.value)
        yield limit
