"""Runs a service as several worker processes on one port: the process that operators see.

The supervisor reserves the ports, starts the workers, replaces each worker that ends, exports the metrics of all, and
on a signal has all of them drain at the same time. The supervisor serves no calls; if it is killed, its workers drain
and end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Final

import structlog

from serving.files.material import read_material
from serving.runtime.health_file import health_noted
from serving.runtime.lifecycle import StopSignals
from serving.runtime.settings import ServerSettings, variables_of
from serving.runtime.supervision.crew import Crew
from serving.runtime.supervision.metrics.collector import WorkersCollector
from serving.runtime.supervision.order import Order, settings_of_each
from serving.runtime.supervision.reservation import Reservation
from serving.runtime.supervision.times import Times
from serving.runtime.supervision.worker_slot import CannotStart
from serving.transport.hosts.metrics_port import MetricsServer
from serving.workers.board import Board
from serving.workers.inboxes import Inboxes

log = structlog.get_logger()

_FAILED: Final = 1
_TIMES: Final = Times()


async def supervise(program: str, build: str, settings: ServerSettings, times: Times = _TIMES) -> int:
    """Serve until a signal; return the exit code, which is that of a worker if one cannot start.

    Args:
        program: name of the program.
        build: function that builds the workload from settings, as ``module:function``.
        settings: settings of the service.
        times: time bounds.

    Raises:
        CannotListen: a port is not available.
        UnusableCertificate: the certificate that the settings name cannot be used.
    """
    files = settings.tls()
    if files is not None:
        read_material(files)
    with Reservation() as reservation, contextlib.ExitStack() as stack:
        ports = _reserved(reservation, settings)
        board = Board.create(settings.worker_processes())
        stack.callback(board.close)
        memory = os.memfd_create("shared", os.MFD_CLOEXEC)
        stack.callback(os.close, memory)
        inboxes = Inboxes(board.workers)
        stack.callback(inboxes.close)
        values = settings_of_each(settings, board.workers, ports)
        kind = type(settings)

        def order(index: int, generation: int) -> Order:
            return Order(
                program=program,
                build=build,
                settings_class=f"{kind.__module__}:{kind.__qualname__}",
                settings=values,
                workers=board.workers,
                index=index,
                generation=generation,
                board=board.descriptor,
                memory=memory,
                inboxes=inboxes.of(index),
            )

        # The settings already hold the values of flags and variables; a worker would read an inherited variable again.
        own = variables_of(kind)
        environment = {name: value for name, value in os.environ.items() if name.upper() not in own}
        crew = Crew(order, board, environment, times, settings.metrics_models)
        async with _exported(crew, settings, times):
            return await _life(crew, settings, times)


async def _life(crew: Crew, settings: ServerSettings, times: Times) -> int:
    signals = StopSignals.of_process()
    crew.start()
    # Workers that hang are replaced, so those that are ready respond.
    with health_noted(settings.health_file, lambda: crew.serving > 0 and not signals.first.is_set()):
        return await _until_stopped(crew, settings, times, signals)


async def _until_stopped(crew: Crew, settings: ServerSettings, times: Times, signals: StopSignals) -> int:
    try:
        serving = asyncio.ensure_future(_serve(crew))
        stopped = asyncio.ensure_future(signals.first.wait())
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        serving.cancel()
        return await _drain(crew, settings, signals, times)
    except CannotStart as error:
        log.error("a worker cannot start; see its log lines above", exit_code=error.code)
        crew.stop()
        await crew.wait(times.close)
        return error.code if error.code > 0 else _FAILED
    finally:
        await crew.close()
        log.info("stopped")


async def _serve(crew: Crew) -> None:
    address = await crew.wait_until_listening()
    log.info("listening", address=address)
    await crew.wait_until_ready()
    log.info("ready", address=address)
    await crew.wait_for_a_fault()


async def _drain(crew: Crew, settings: ServerSettings, signals: StopSignals, times: Times) -> int:
    delay, grace = settings.drain_delay_seconds, settings.drain_grace_seconds
    log.info("draining", delay_seconds=delay, grace_seconds=grace)
    crew.stop()
    hurrying = asyncio.ensure_future(_hurry(crew, signals))
    try:
        return await crew.wait(delay + grace + times.close)
    finally:
        hurrying.cancel()


async def _hurry(crew: Crew, signals: StopSignals) -> None:
    await signals.second.wait()
    crew.stop()


@contextlib.asynccontextmanager
async def _exported(crew: Crew, settings: ServerSettings, times: Times) -> AsyncIterator[None]:
    """Export metrics within the block if the settings enable them. Raises CannotListen."""
    if not settings.metrics_port:
        yield
        return
    # Merging the answers takes time beyond the workers' own bound.
    collector = WorkersCollector(crew.metrics, lambda: crew.serving, lambda: crew.restarts, 2 * times.metrics)
    server = MetricsServer(settings.host, settings.metrics_port, [collector])
    await server.start()
    try:
        yield
    finally:
        await server.close()


def _reserved(reservation: Reservation, settings: ServerSettings) -> dict[str, int]:
    """Reserve the ports and return them by the name of the setting. Raises CannotListen."""
    ports = {"port": reservation.take(settings.host, settings.port)}
    if settings.health_port:
        ports["health_port"] = reservation.take(settings.host, settings.health_port, " for health checks")
    return ports
