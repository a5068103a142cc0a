"""HTTP server for Prometheus metrics. Collectors measure; this module only reports.

Scrapes are answered in separate threads. Metrics therefore work in the same way on every transport, a large answer does
not hold up the event loop, and a busy event loop does not hold up a scrape.
"""

from __future__ import annotations

import asyncio
import errno
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

from grpc_http2.server.listening import NOT_OF_THIS_MACHINE, places_of
from intent_serving_client.addresses import address_of
from serving.transport.hosts.listening import cannot_listen

log = structlog.get_logger()

_MOST_AT_ONCE: Final = 8
_REQUEST_SECONDS: Final = 10.0


class MetricsServer:
    """Answers scrapes with the metrics of ``collectors``.

    Args:
        host: address to listen on.
        port: port to listen on.
        collectors: collectors that are read at every scrape, in any thread.
        request_seconds: time limit for reading from a caller, and for writing to a caller, in seconds.
    """

    def __init__(
        self, host: str, port: int, collectors: Sequence[Collector], *, request_seconds: float = _REQUEST_SECONDS
    ) -> None:
        self._host = host
        self._port = port
        self._request_seconds = request_seconds
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            self._registry.register(collector)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Start listening.

        Raises:
            CannotListen: the address is not available.
        """
        try:
            self._server = await _server_at(
                self._host, self._port, make_wsgi_app(self._registry), self._request_seconds
            )
        except (OSError, UnicodeError) as error:
            raise cannot_listen(self._host, self._port, error, " for metrics") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        log.info("metrics", address=address_of(self._host, self._server.server_port))

    async def close(self) -> None:
        """Stop listening. Scrapes in progress end with the process."""
        if self._server is not None and self._thread is not None:
            await asyncio.to_thread(self._server.shutdown)
            await asyncio.to_thread(self._thread.join)
            self._server.server_close()


async def _server_at(host: str, port: int, application: Any, request_seconds: float) -> _Server:
    """Return a server on the first address of ``host`` that this machine has. Raises OSError, UnicodeError."""
    missing: OSError | None = None
    for family, address in await places_of(host, port):
        try:
            return _Server((family, address), application, request_seconds)
        except OSError as error:
            if error.errno not in NOT_OF_THIS_MACHINE:
                raise
            missing = error
    raise missing or OSError(errno.EADDRNOTAVAIL, "no address")


class _Handler(WSGIRequestHandler):
    """Handler of one connection, which carries one request."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class defines the name
        """Log nothing: scrapes arrive every few seconds."""

    def address_string(self) -> str:
        """Return the caller's numeric address, without a name lookup."""
        return str(self.client_address[0])


class _Server(ThreadingWSGIServer):
    """A server with one thread per scrape and at most ``_MOST_AT_ONCE`` threads."""

    request_queue_size = 16

    def __init__(self, address: tuple[socket.AddressFamily, Any], application: Any, request_seconds: float) -> None:
        self.address_family, place = address
        self._request_seconds = request_seconds
        self._places = threading.BoundedSemaphore(_MOST_AT_ONCE)
        super().__init__(place, _Handler)
        self.set_app(application)

    def server_bind(self) -> None:
        """Bind without the lookup of this machine's name that the base class makes."""
        if self.address_family == socket.AF_INET6:
            # The address :: includes those of IPv4, whatever the system's default is.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection, which is closed if its caller is silent for too long."""
        request, client_address = super().get_request()
        request.settimeout(self._request_seconds)
        return request, client_address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether a thread is available for the request."""
        del request, client_address
        return self._places.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one scrape."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a failed scrape. The usual cause is a caller that disconnected."""
        del request, client_address
        log.info("scrape of metrics failed", exc_info=sys.exception())
