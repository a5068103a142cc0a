"""The life of a service: listen, become ready, serve until a signal, drain, close."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from serving.settings import ServerSettings

log = structlog.get_logger()


class Host(Protocol):
    """A transport, as the lifecycle sees it."""

    async def start(self) -> str:
        """Listen; return the address."""

    async def set_serving(self, serving: bool) -> None:
        """Tell health checks."""

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those in flight end within ``grace`` seconds."""


async def serve(
    host: Host,
    settings: ServerSettings,
    *,
    get_ready: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Run ``host`` until SIGTERM or SIGINT.

    Health says SERVING once ``get_ready`` has returned. After a signal it says NOT_SERVING, load balancers get
    ``drain_delay_seconds`` to see it, new calls are refused, and those in flight get ``drain_grace_seconds`` to end;
    then ``close`` runs. A second signal cuts the waiting short.
    """
    stopping, hurry = _signals()
    try:
        address = await host.start()
        log.info("listening", address=address)
        ready = asyncio.ensure_future(_become_ready(host, address, get_ready))
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            ready.result()
            await stopped
        else:
            ready.cancel()
        await _drain(host, settings, hurry)
    finally:
        await close()
    log.info("stopped")


async def _become_ready(host: Host, address: str, get_ready: Callable[[], Awaitable[None]]) -> None:
    await get_ready()
    await host.set_serving(True)
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


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return an event set by the first signal to stop, and one set by the second."""
    first, second = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return first, second
