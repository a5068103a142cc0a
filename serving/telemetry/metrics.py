"""Metrics for Prometheus, over HTTP. What is measured, collectors know; here it is only told.

Scrapes are answered in threads of their own, so that it is the same on every transport, and neither does a large answer
hold up the event loop, nor a busy event loop a scrape.
"""

from __future__ import annotations

import asyncio
import socket
import socketserver
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from serving.wire.listening import CannotListen

log = structlog.get_logger()

_MOST_AT_ONCE: Final = 8
_PATIENCE_SECONDS: Final = 10.0


class MetricsServer:
    """Answers scrapes with what ``collectors`` give.

    Args:
        host: address to listen on.
        port: to listen on.
        collectors: asked at every scrape, in any thread.
    """

    def __init__(self, host: str, port: int, collectors: Sequence[Collector]) -> None:
        self._host = host
        self._port = port
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            self._registry.register(collector)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            CannotListen: the address cannot be had.
        """
        try:
            self._server = _Server(await _address_of(self._host, self._port), make_wsgi_app(self._registry))
        except OSError as error:
            wanted = f"{self._host}:{self._port}"
            raise CannotListen(f"cannot listen on {wanted} for metrics: another process may hold it") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        log.info("metrics", address=f"{self._host}:{self._server.server_port}")

    async def close(self) -> None:
        """Listen no more. Scrapes under way end with the process."""
        if self._server is not None and self._thread is not None:
            await asyncio.to_thread(self._server.shutdown)
            await asyncio.to_thread(self._thread.join)
            self._server.server_close()


async def _address_of(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return family, address


class _Handler(WSGIRequestHandler):
    """Of one connection, which has one request."""

    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base names it so
        """Log nothing: scrapes come every few seconds."""

    def address_string(self) -> str:
        """Return the caller's address as it is, without asking for its name."""
        return str(self.client_address[0])


class _Server(ThreadingWSGIServer):
    """A thread a scrape, and no more than a few of them."""

    request_queue_size = 16

    def __init__(self, address: tuple[socket.AddressFamily, Any], application: Any) -> None:
        self.address_family, place = address
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(place, _Handler)
        self.set_app(application)

    def server_bind(self) -> None:
        """Bind, without looking up what this machine is called, as the base does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether there is a thread for it."""
        del request, client_address
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one scrape."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of a scrape that failed; mostly its caller has left."""
        del request, client_address
        log.info("a scrape of metrics failed", exc_info=sys.exception())
