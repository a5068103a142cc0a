"""Metrics that every service reports: those of its calls and its process."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.registry import Collector

from serving.files.reloads import ReloadFailureCollector
from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload
from serving.telemetry.calls import CallCollector, CallTimes
from serving.telemetry.dialects import MODELMESH
from serving.telemetry.modelmesh import InferenceCalls
from serving.telemetry.process import process_collectors
from serving.transport.hosts.metrics_port import MetricsServer


def observed(workload: Workload, settings: ServerSettings, service: str) -> Workload:
    """Return ``workload`` with its calls counted and its metrics exported; unchanged if the settings disable metrics.

    A worker counts but does not export.

    Args:
        workload: workload with the guards that its boundary will use.
        settings: settings of the service.
        service: name of the service.
    """
    if not settings.metrics_port:
        return workload
    times = CallTimes()
    admission = workload.guards.admission
    calls: list[Collector] = [CallCollector(times, lambda: admission.in_flight)]
    if MODELMESH in settings.names_of_metrics():
        calls.append(InferenceCalls(times))
    watched = replace(
        workload,
        guards=replace(workload.guards, observer=times),
        collectors=[*calls, *process_collectors(service), ReloadFailureCollector(), *workload.collectors],
    )
    if settings.membership is not None:
        # The supervisor exports the metrics of all workers.
        return watched
    return with_metrics(watched, settings.host, settings.metrics_port)


def with_metrics(workload: Workload, host: str, port: int) -> Workload:
    """Return ``workload`` with its metrics exported on ``port`` from start to close; unchanged if ``port`` is 0."""
    if not port:
        return workload
    server = MetricsServer(host, port, workload.collectors)

    async def get_ready() -> None:
        await server.start()
        await workload.get_ready()

    return replace(workload.closing(server.close), get_ready=get_ready)
