"""A workload whose calls are traced. Imported only if traces are on: the tracing library takes a while to load."""

from __future__ import annotations

from dataclasses import replace

import structlog

from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload
from serving.telemetry.traces.sampling import SampledCalls
from serving.telemetry.traces.sending import TraceSender

log = structlog.get_logger()


def traced(workload: Workload, settings: ServerSettings, service: str) -> Workload:
    """Return ``workload`` with its calls traced and the traces sent to the endpoint in ``settings``."""
    sender = TraceSender(settings.trace_endpoint, service)
    log.info("traces", endpoint=settings.trace_endpoint, share=settings.trace_share)
    guards = replace(
        workload.guards, tracer=SampledCalls(sender.tracer, settings.trace_share, settings.traces_per_second)
    )
    return replace(workload.closing(sender.close), guards=guards, collectors=[*workload.collectors, sender])
