"""Hosts services on grpcio's own asyncio server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from serving.settings import ServerSettings
from serving.tls.certificates import Certificates
from serving.tls.material import TlsMaterial
from serving.transport.guards import Guards
from serving.transport.hosted import HostedServices
from serving.transport.lifecycle import CannotListen
from serving.transport.service import Service


class GrpcioHost:
    """One listening server with health and reflection. It says NOT_SERVING until :meth:`set_serving`.

    Args:
        settings: of the service.
        services: what it serves.
        guards: what the boundary asks and tells of every call.
        certificates: what it encrypts with, followed by somebody else; without: what the settings name, as it is now.

    Raises:
        UnusableCertificate: the settings name one that cannot be used.
    """

    def __init__(
        self,
        settings: ServerSettings,
        services: Sequence[Service],
        guards: Guards,
        certificates: Certificates | None = None,
    ) -> None:
        self._settings = settings
        self._certificates = certificates or Certificates.of(settings)
        self._credentials: grpc.ServerCredentials | None = None
        self._server = grpc.aio.server(options=_options(settings))
        self._hosted = HostedServices(settings, services, self._server, guards)

    async def start(self) -> str:
        """Listen; return the address with the port that was taken.

        Raises:
            CannotListen: the address cannot be had.
        """
        await self.set_serving(False)
        wanted = f"{self._settings.host}:{self._settings.port}"
        try:
            port = self._listen(wanted)
        except RuntimeError as error:
            raise CannotListen(f"cannot listen on {wanted}: another process may hold it") from error
        await self._server.start()
        await self._hosted.open_health_port()
        return f"{self._settings.host}:{port}"

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        await self._hosted.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait up to ``grace`` seconds for those in flight, then end the rest."""
        # The server cancels calls that have arrived and are not yet picked up, so those are let in first. Where they
        # never cease, their callers are kept waiting until none is left, and refused once they can only go elsewhere.
        await self._hosted.pick_up_calls(grace)
        await self._hosted.hold_new_calls(grace)
        self._hosted.end_watches()
        stopped = asyncio.ensure_future(self._server.stop(grace))
        # It begins with the next turn of the loop.
        await asyncio.sleep(0)
        self._hosted.boundary.refuse_new_calls()
        await stopped
        await self._hosted.close_health_port()

    def _listen(self, wanted: str) -> int:
        certificates = self._certificates
        if certificates is None:
            return self._server.add_insecure_port(wanted)
        material = certificates.material
        # gRPC asks them before every handshake, and does not keep them alive.
        self._credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(material),
            # It may give nothing, whatever the published types say.
            _Fetcher(certificates, material),  # type: ignore[arg-type]
            require_client_authentication=material.authority is not None,
        )
        return self._server.add_secure_port(wanted, self._credentials)


class _Fetcher:
    """Asked by gRPC before every handshake, in a thread of its own, one at a time: gives what is new, and only once."""

    def __init__(self, certificates: Certificates, given: TlsMaterial) -> None:
        self._certificates = certificates
        self._given = given

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        material = self._certificates.material
        if material is self._given:
            return None
        self._given = material
        return _configuration(material)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    pair = (material.key or b"", material.certificate or b"")
    return grpc.ssl_server_certificate_configuration([pair], material.authority)


def _options(settings: ServerSettings) -> Sequence[tuple[str, Any]]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # Clients keep to the bound by themselves; with this on, the server resets streams at random close to it.
        ("grpc.http.overload_protection", 0),
        # Calls that arrive faster than they are picked up wait here; gRPC would cancel those beyond a thousand.
        ("grpc.server.max_pending_requests", settings.max_in_flight),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_in_flight),
        # Two services on one port would share its calls at random; the workers of one are to.
        ("grpc.so_reuseport", int(settings.membership is not None)),
        # Reconnecting now and then lets clients find new replicas: gRPC looks a name up again when a connection ends.
        ("grpc.max_connection_age_ms", round(settings.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", 60 * 1000),
        # A caller that has vanished is noticed; one that wants to notice the same of us may ask twice a second.
        ("grpc.keepalive_time_ms", 30 * 1000),
        ("grpc.keepalive_timeout_ms", 10 * 1000),
        ("grpc.http2.ping_timeout_ms", 10 * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        # Calls that a caller cancels count as its own until it has answered a ping: who cancels without end is held up.
        ("grpc.http2.ping_on_rst_stream_percent", 100),
        ("grpc.server_handshake_timeout_ms", 10 * 1000),
    )
