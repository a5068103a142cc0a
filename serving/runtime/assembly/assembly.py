"""Assembly of a program's workload with the parts that every service has."""

from __future__ import annotations

from dataclasses import replace

from serving.files.certificates import Certificates
from serving.runtime.assembly.certificates import with_certificates
from serving.runtime.assembly.metrics import observed
from serving.runtime.assembly.model_folder import with_model_folder
from serving.runtime.program import Program
from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload
from serving.telemetry.call_log import CallLog
from serving.transport.admission import Admission
from serving.transport.admission_metrics import AdmissionCollector
from serving.transport.concurrency import Goal


def built(program: Program, settings: ServerSettings, certificates: Certificates | None) -> Workload:
    """Return the program's workload with the parts that every service has.

    Called on the event loop that serves the workload.
    """
    workload = program.builder()(settings)
    admission = admission_of(settings)
    guards = replace(
        workload.guards,
        admission=admission,
        log=CallLog(settings.log_calls, documents=settings.log_documents),
    )
    workload = replace(workload, guards=guards, collectors=[*workload.collectors, AdmissionCollector(admission)])
    workload = with_model_folder(workload, settings.model_dir)
    if certificates is not None:
        workload = with_certificates(workload, certificates)
    if settings.trace_endpoint:
        from serving.runtime.assembly.traces import traced  # noqa: PLC0415 - loading its library takes a while

        workload = traced(workload, settings, program.name)
    return observed(workload, settings, program.name)


def admission_of(settings: ServerSettings) -> Admission:
    """Return the admission with the bounds in ``settings``."""
    goal = Goal(settings.min_in_flight, settings.latency_goal_seconds, settings.latency_tolerance)
    return Admission(settings.max_in_flight, most_waiting=settings.max_waiting, goal=goal)
