"""``python -m serving.runtime.worker PROGRAM INDEX DESCRIPTOR``: one worker, started only by its supervisor.

The descriptor is the worker's end of the pair of sockets over which the supervisor sends what to serve; the program and
the index are only for operators who list processes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Final

import uvloop
from prometheus_client.registry import Collector
from pydantic import ValidationError

from serving.files.certificates import Certificates
from serving.files.material import UnusableCertificate
from serving.runtime.assembly.assembly import built
from serving.runtime.hosting import host_of
from serving.runtime.lifecycle import serve
from serving.runtime.program import Program
from serving.runtime.settings import EXIT_WRONG_SETTINGS, ServerSettings
from serving.runtime.supervision.frames import BlockingFrames
from serving.runtime.supervision.metrics.families import collected
from serving.runtime.supervision.order import Order
from serving.runtime.supervision.times import Times
from serving.runtime.worker.obedience import Obedience
from serving.runtime.worker.reporting import ReportingHost
from serving.runtime.worker.stopping import Stopping
from serving.telemetry.logs import configure_logs
from serving.transport.hosts.listening import CannotListen
from serving.workers.heart import Heart
from serving.workers.membership import Membership

_TIMES: Final = Times()


def main() -> None:
    """Serve what the supervisor orders, until the supervisor orders a stop or is gone."""
    end = socket.socket(fileno=int(sys.argv[3]))
    end.set_inheritable(False)
    frames = BlockingFrames(end)
    message = frames.receive()
    if message is None:
        sys.exit("a worker is started by its supervisor, which is gone")
    order = Order.of(message)
    for descriptor in order.descriptors():
        os.set_inheritable(descriptor, False)
    try:
        settings = order.worker_settings()
    except ValidationError as error:
        # The files that the settings name existed when the supervisor checked them.
        faults = "; ".join(fault["msg"] for fault in error.errors(include_url=False))
        sys.stderr.write(f"{order.program}: wrong settings, worker {order.index} not started: {faults}\n")
        sys.exit(EXIT_WRONG_SETTINGS)
    configure_logs(order.program, settings.log_level, settings.log_format, worker=order.index)
    try:
        uvloop.run(_serve(Program(order.program, order.build), settings, order.membership(), frames))
    except (CannotListen, UnusableCertificate) as error:
        sys.exit(f"{order.program}: {error}")


async def _serve(program: Program, settings: ServerSettings, membership: Membership, frames: BlockingFrames) -> None:
    settings = settings.of_worker(membership)
    stopping = Stopping()
    collectors: list[Collector] = []
    with _supervised(frames, stopping, settings, collectors), _beating(membership):
        certificates = Certificates.of(settings.tls())
        workload = built(program, settings, certificates)
        collectors += workload.collectors
        host = host_of(settings, workload, certificates)
        before: Callable[[], Awaitable[None]] = _nothing
        if membership.generation:
            # Listen only once ready: other workers serve meanwhile, and a call must reach a worker that can answer.
            before, workload = workload.get_ready, replace(workload, get_ready=_nothing)
        await serve(ReportingHost(host, frames, before), settings, workload, stopping.signals)


@contextlib.contextmanager
def _supervised(
    frames: BlockingFrames, stopping: Stopping, settings: ServerSettings, collectors: list[Collector]
) -> Iterator[None]:
    def stop() -> None:
        # The event loop may be closed already.
        with contextlib.suppress(RuntimeError):
            stopping.order()

    patience = settings.drain_delay_seconds + settings.drain_grace_seconds + _TIMES.close
    obedience = Obedience(frames, stop, lambda: collected(collectors), patience)
    obedience.begin()
    try:
        yield
    finally:
        obedience.end()


@contextlib.contextmanager
def _beating(membership: Membership) -> Iterator[None]:
    heart = Heart(membership)
    try:
        yield
    finally:
        heart.stop()


async def _nothing() -> None:
    pass


if __name__ == "__main__":
    main()
