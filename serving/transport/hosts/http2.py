"""Hosts services on our own gRPC server, and plain HTTP beside them on the same port."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc

from grpc_http2.certificates import load_pair
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.plain_http.http_exchange import Application
from grpc_http2.server.server import Server
from intent_serving_client.addresses import address_of
from serving.files.certificates import Certificates
from serving.files.material import TlsMaterial
from serving.transport.boundary import Boundary
from serving.transport.guards import Guards
from serving.transport.hosts.hosted import HostedServices
from serving.transport.hosts.listening import cannot_listen
from serving.transport.hosts.settings import HostSettings
from serving.transport.served_call import GuardedMethod
from serving.transport.service import Handlers, Service
from serving.workers.dealing import Dealer

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Http2Host:
    """One listening server with health and reflection, NOT_SERVING until :meth:`set_serving`.

    Args:
        settings: settings of the service.
        services: services to host.
        guards: guards that the boundary applies to every call.
        certificates: certificates to encrypt with, which other code keeps up to date; if missing, those that the
            settings name, as they are now.
        web: builds the application that answers plain HTTP requests behind a boundary.

    Raises:
        UnusableCertificate: the certificate that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: HostSettings,
        services: Sequence[Service],
        guards: Guards,
        certificates: Certificates | None = None,
        web: Callable[[Boundary], Application] | None = None,
    ) -> None:
        self._settings = settings
        self._certificates = certificates or Certificates.of(settings.tls())
        self._server = Server(_limits(settings))
        self._dealer: Dealer | None = None
        self._hosted = HostedServices(settings, services, Http2Transport(self._server), guards)
        if web is not None:
            self._server.serve_http(web(self._hosted.boundary))

    async def start(self) -> str:
        """Listen; return the address with the actual port.

        Raises:
            CannotListen: the address is not available.
        """
        await self.set_serving(False)
        certificates = self._certificates
        tls = None if certificates is None else _context(certificates.material)
        if certificates is not None:
            loop = asyncio.get_running_loop()

            def hand_over(material: TlsMaterial) -> None:
                asyncio.run_coroutine_threadsafe(self._server.replace_tls(_context(material)), loop).result()

            certificates.on_change(hand_over)
        host, port = self._settings.host, self._settings.port
        try:
            port = await self._listen(host, port, tls)
        except (OSError, UnicodeError) as error:
            raise cannot_listen(host, port, error) from error
        await self._hosted.open_health_port()
        return address_of(host, port)

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        await self._hosted.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait up to ``grace`` seconds for those in flight, then end the rest."""
        if self._dealer is not None:
            self._dealer.withdraw()
        self._hosted.end_watches()
        self._hosted.boundary.end_streams()
        await self._server.stop(grace)
        if self._dealer is not None:
            self._dealer.end()
        await self._hosted.close()

    async def _listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen and return the port. Raises OSError."""
        membership = self._settings.membership
        if membership is None:
            return await self._server.listen(host, port, tls=tls)
        dealer = self._dealer = Dealer(membership, lambda: self._server.connections)
        port = await self._server.listen(host, port, tls=tls, reuse_port=True, dealing=dealer)
        dealer.begin(self._server.adopt)
        return port


class Http2Transport:
    """A :class:`~serving.transport.boundary.Transport` on our own server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register handlers that look up a method by its name."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Register the same handlers as a table of one service's methods."""
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_guarded_methods(self, service_name: str, methods: Mapping[str, GuardedMethod]) -> None:
        """Register methods with one message each way."""
        for name, method in methods.items():
            self._server.add_call_handler(f"/{service_name}/{name}", method)


def _limits(settings: HostSettings) -> ServerLimits:
    return ServerLimits(
        max_message_bytes=settings.max_message_bytes,
        max_streams=settings.max_streams_per_connection,
        max_connections=settings.max_connections,
        connection_age_seconds=settings.connection_age_seconds,
    )


def _context(material: TlsMaterial) -> ssl.SSLContext:
    """Return a TLS context with the certificate of ``material``, which verifies callers if there is an authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    load_pair(context, material.certificate or b"", material.key or b"")
    if material.authority is not None:
        context.load_verify_locations(cadata=material.authority.decode("ascii", "replace"))
        context.verify_mode = ssl.CERT_REQUIRED
    return context
