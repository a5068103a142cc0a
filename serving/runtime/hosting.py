"""Runs a program's services as a process, on the transport that its settings name. For composition roots."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import uvloop

from serving.files.certificates import Certificates
from serving.files.material import UnusableCertificate
from serving.runtime.assembly.certificates import with_certificates
from serving.runtime.assembly.metrics import observed
from serving.runtime.lifecycle import CannotListen, Host, StopSignals, Workload, serve
from serving.runtime.settings import ServerSettings
from serving.runtime.supervision import supervisor
from serving.telemetry.call_log import CallLog
from serving.telemetry.logs import configure_logs
from serving.transport.admission import Admission
from serving.transport.admission_metrics import AdmissionCollector
from serving.transport.concurrency import Goal
from serving.transport.hosts.grpcio import GrpcioHost
from serving.transport.hosts.http2 import Http2Host


@dataclass(frozen=True, slots=True)
class Program:
    """A kind of process.

    ``build`` is named instead of given: a worker, which is a process of its own, may be the one that builds.
    """

    name: str
    build: str
    """Where the function is that makes the workload of settings: ``module:function``."""

    def builder(self) -> Callable[[ServerSettings], Workload]:
        """Return that function, its module imported."""
        module, _, name = self.build.partition(":")
        builder: Callable[[ServerSettings], Workload] = getattr(importlib.import_module(module), name)
        return builder


def built(program: Program, settings: ServerSettings, certificates: Certificates | None) -> Workload:
    """Return the program's workload with what every service has. Called on the event loop that serves it."""
    workload = program.builder()(settings)
    admission = admission_of(settings)
    guards = replace(
        workload.guards,
        admission=admission,
        log=CallLog(settings.log_calls, documents=settings.log_documents),
    )
    collectors = [*workload.collectors, AdmissionCollector(admission)]
    workload = replace(workload, collectors=collectors)
    if certificates is not None:
        workload = with_certificates(workload, certificates)
    workload = replace(workload, guards=guards)
    if settings.trace_endpoint:
        from serving.telemetry.traces import traced  # noqa: PLC0415 - loading its library takes a while

        workload = traced(workload, settings, program.name)
    return observed(workload, settings, program.name)


def admission_of(settings: ServerSettings) -> Admission:
    """Return the bounds on calls that ``settings`` name."""
    goal = Goal(settings.min_in_flight, settings.latency_goal_seconds, settings.latency_tolerance)
    return Admission(settings.max_in_flight, most_waiting=settings.max_waiting, goal=goal)


def host_of(settings: ServerSettings, workload: Workload, certificates: Certificates | None) -> Host:
    """Return what serves ``workload`` on the transport that ``settings`` name."""
    if settings.transport == "http2":
        return Http2Host(settings, workload.services, workload.guards, certificates, workload.web)
    return GrpcioHost(settings, workload.services, workload.guards, certificates)


def run(program: Program, settings: ServerSettings) -> None:
    """Serve until a signal. Exits with 1 and one line where the address or the certificate cannot be had."""
    configure_logs(program.name, settings.log_level, settings.log_format)
    try:
        if settings.worker_processes() > 1:
            sys.exit(uvloop.run(supervisor.supervise(program.name, program.build, settings)))
        uvloop.run(_serve(program, settings))
    except (CannotListen, UnusableCertificate) as error:
        sys.exit(f"{program.name}: {error}")


async def _serve(program: Program, settings: ServerSettings) -> None:
    certificates = Certificates.of(settings)
    workload = built(program, settings, certificates)
    await serve(host_of(settings, workload, certificates), settings, workload, StopSignals.of_process())
