"""Runs a program's services as a process, on the transport that its settings name. For composition roots."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
import uvloop

from serving.settings import ServerSettings
from serving.telemetry.logs import configure_logs
from serving.telemetry.metrics import with_metrics
from serving.transport import envoy
from serving.transport.admission import Admission
from serving.transport.grpcio import GrpcioHost
from serving.transport.lifecycle import CannotListen, StopSignals, Workload, serve

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Program:
    """A kind of process.

    ``build`` is named instead of given: another process may be the one that builds.
    """

    name: str
    build: str
    """Where the function is that makes the workload of settings: ``module:function``."""

    def builder(self) -> Callable[[ServerSettings], Workload]:
        """Return that function, its module imported."""
        module, _, name = self.build.partition(":")
        builder: Callable[[ServerSettings], Workload] = getattr(importlib.import_module(module), name)
        return builder


def built(program: Program, settings: ServerSettings) -> Workload:
    """Return the program's workload with what every service has. Called on the event loop that serves it."""
    workload = program.builder()(settings)
    guards = replace(workload.guards, admission=Admission(settings.max_in_flight))
    return with_metrics(replace(workload, guards=guards), settings.host, settings.metrics_port)


def run(program: Program, settings: ServerSettings) -> None:
    """Serve until a signal. Exits with 1 and one line where the address cannot be had."""
    configure_logs(program.name, settings.log_level, settings.log_format)
    try:
        if settings.transport == "envoy":
            missing = envoy.what_is_missing()
            if missing is None:
                from serving.transport.envoy.supervisor import supervise  # noqa: PLC0415 - its packages are an option

                sys.exit(uvloop.run(supervise(program, settings)))
            log.warning("no envoy transport here; serving on grpcio, slower and otherwise the same", missing=missing)
        uvloop.run(_serve_on_grpcio(program, settings))
    except CannotListen as error:
        sys.exit(f"{program.name}: {error}")


async def _serve_on_grpcio(program: Program, settings: ServerSettings) -> None:
    workload = built(program, settings)
    host = GrpcioHost(settings, workload.services, workload.guards)
    await serve(host, settings, workload, StopSignals.of_process())
