"""Runs a program's services as a process, on the transport that the settings name. For composition roots."""

from __future__ import annotations

import sys

import uvloop

from serving.files.certificates import Certificates
from serving.files.material import UnusableCertificate
from serving.runtime.assembly.assembly import built
from serving.runtime.lifecycle import Host, StopSignals, serve
from serving.runtime.program import Program
from serving.runtime.settings import ServerSettings
from serving.runtime.supervision import supervisor
from serving.runtime.workload import Workload
from serving.telemetry.logs import configure_logs
from serving.transport.hosts.grpcio import GrpcioHost
from serving.transport.hosts.http2 import Http2Host
from serving.transport.hosts.listening import CannotListen


def host_of(settings: ServerSettings, workload: Workload, certificates: Certificates | None) -> Host:
    """Return the host that serves ``workload`` on the transport that ``settings`` name."""
    if settings.transport == "http2":
        return Http2Host(settings, workload.services, workload.guards, certificates, workload.web)
    return GrpcioHost(settings, workload.services, workload.guards, certificates)


def run(program: Program, settings: ServerSettings) -> None:
    """Serve until a signal.

    Exits with code 1 and a one-line message if the address or the certificate cannot be used.
    """
    configure_logs(program.name, settings.log_level, settings.log_format)
    try:
        if settings.worker_processes() > 1:
            sys.exit(uvloop.run(supervisor.supervise(program.name, program.build, settings)))
        uvloop.run(_serve(program, settings))
    except (CannotListen, UnusableCertificate) as error:
        sys.exit(f"{program.name}: {error}")


async def _serve(program: Program, settings: ServerSettings) -> None:
    certificates = Certificates.of(settings.tls())
    workload = built(program, settings, certificates)
    await serve(host_of(settings, workload, certificates), settings, workload, StopSignals.of_process())
