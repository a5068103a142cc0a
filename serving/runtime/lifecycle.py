"""The life of a service: listen, become ready, serve until a signal, drain, close."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from serving.runtime.garbage import settle
from serving.runtime.settings import ServerSettings
from serving.runtime.workload import Workload

log = structlog.get_logger()


class StopSignals:
    """First and second request to stop the process."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()

    def ask(self) -> None:
        """Request a stop; a second call requests a stop without waiting."""
        (self.second if self.first.is_set() else self.first).set()

    @classmethod
    def of_process(cls) -> StopSignals:
        """Return the requests that SIGTERM and SIGINT make. REQUIRES: called on the main thread."""
        signals = cls()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, signals.ask)
        return signals


class Host(Protocol):
    """A transport, as the lifecycle sees it."""

    async def start(self) -> str:
        """Listen; return the address."""

    async def set_serving(self, serving: bool) -> None:
        """Set whether health checks report SERVING."""

    async def stop(self, grace: float) -> None:
        """Refuse new calls, and give those in flight ``grace`` seconds to end."""


async def serve(host: Host, settings: ServerSettings, workload: Workload, signals: StopSignals) -> None:
    """Run ``host`` until a stop is requested.

    Health checks report SERVING once the workload is ready, and NOT_SERVING after a signal. Load balancers then have
    ``drain_delay_seconds`` to notice. After that, new calls are refused, and calls in flight have
    ``drain_grace_seconds`` to end. Finally the workload is closed. A second signal cuts the waiting short.
    """
    try:
        ready = asyncio.ensure_future(_become_ready(host, workload.get_ready))
        stopped = asyncio.ensure_future(signals.first.wait())
        await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            await stopped
        else:
            ready.cancel()
        workload.on_drain()
        await _drain(host, settings, signals.second)
    finally:
        await workload.close()
    log.info("stopped")


async def _become_ready(host: Host, get_ready: Callable[[], Awaitable[None]]) -> None:
    try:
        address = await host.start()
        log.info("listening", address=address)
        await get_ready()
        settle()
        await host.set_serving(True)
    except Exception:
        # A host that is left running would fail in its own way once the event loop is closed.
        await host.stop(0)
        raise
    log.info("ready", address=address)


async def _drain(host: Host, settings: ServerSettings, hurry: asyncio.Event) -> None:
    await host.set_serving(False)
    log.info("draining", delay_seconds=settings.drain_delay_seconds, grace_seconds=settings.drain_grace_seconds)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(hurry.wait(), settings.drain_delay_seconds)
    stop = asyncio.ensure_future(host.stop(settings.drain_grace_seconds))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({stop, hurried}, return_when=asyncio.FIRST_COMPLETED)
    hurried.cancel()
    if not stop.done():
        await host.stop(0)
    await stop
