"""Runs a program's services as a process, on the transport that the settings name. For composition roots."""

from __future__ import annotations

import os
import resource
import sys
from typing import Final

import structlog
import uvloop

from serving.files.certificates import Certificates
from serving.files.material import UnusableCertificate
from serving.runtime.assembly.assembly import built
from serving.runtime.health_file import noted
from serving.runtime.lifecycle import Host, StopSignals, serve
from serving.runtime.program import Program
from serving.runtime.settings import ServerSettings, variables_of
from serving.runtime.supervision import supervisor
from serving.runtime.variables import SERVICES, unknown_variables
from serving.runtime.workload import Workload
from serving.telemetry.logs import configure_logs
from serving.transport.hosts.grpcio import GrpcioHost
from serving.transport.hosts.http2 import Http2Host
from serving.transport.hosts.listening import CannotListen

log = structlog.get_logger()

_FEWEST_DESCRIPTORS: Final = 64
_DESCRIPTORS_OF_A_WORKER: Final = 8


def host_of(settings: ServerSettings, workload: Workload, certificates: Certificates | None) -> Host:
    """Return the host that serves ``workload`` on the transport that ``settings`` name."""
    if settings.transport == "http2":
        return Http2Host(settings, workload.services, workload.guards, certificates, workload.web)
    return GrpcioHost(settings, workload.services, workload.guards, certificates)


def run(program: Program, settings: ServerSettings) -> None:
    """Serve until a signal.

    Exits with code 1 and a one-line message if the address or the certificate cannot be used, or if the process may
    open too few files.
    """
    configure_logs(program.name, settings.log_level, settings.log_format)
    _log_unknown_variables(settings)
    try:
        _check_descriptors(settings)
        if settings.worker_processes() > 1:
            sys.exit(uvloop.run(supervisor.supervise(program.name, program.build, settings)))
        uvloop.run(_serve(program, settings))
    except (CannotListen, UnusableCertificate, TooFewDescriptors) as error:
        sys.exit(f"{program.name}: {error}")


class TooFewDescriptors(Exception):
    """The process may open fewer files and connections than it needs to start. The message gives the limit."""


def _check_descriptors(settings: ServerSettings) -> None:
    """Check that the process can start. Raises TooFewDescriptors."""
    may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = _FEWEST_DESCRIPTORS + _DESCRIPTORS_OF_A_WORKER * settings.worker_processes()
    if may_open != resource.RLIM_INFINITY and may_open < least:
        raise TooFewDescriptors(
            f"the process may open {may_open} files and connections, and needs {least} to start, and one more for each"
            " caller; raise the limit (ulimit -n)"
        )


def _log_unknown_variables(settings: ServerSettings) -> None:
    kind = type(settings)
    own = str(kind.model_config["env_prefix"])
    others = (prefix for prefix in SERVICES if prefix != own)
    for name, meant in unknown_variables(os.environ, variables_of(kind), others):
        log.warning("unknown environment variable", variable=name, **({"meant": meant} if meant else {}))


async def _serve(program: Program, settings: ServerSettings) -> None:
    certificates = Certificates.of(settings.tls())
    workload = built(program, settings, certificates)
    host = noted(host_of(settings, workload, certificates), settings.health_file)
    await serve(host, settings, workload, StopSignals.of_process())
