"""Hosts services on grpcio's own asyncio server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import grpc
from grpc import StatusCode

from intent_serving_client.addresses import address_of
from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.call.call import request_id_from
from serving.files.certificates import Certificates
from serving.files.material import TlsMaterial
from serving.transport.exchange import Awaited, ContextExchange, Ended, Metadata, RawMetadata
from serving.transport.guards import Guards
from serving.transport.hosts.hosted import HostedServices
from serving.transport.hosts.listening import cannot_listen, cause_of_refusal
from serving.transport.hosts.settings import HostSettings
from serving.transport.served_call import GuardedMethod
from serving.transport.service import Handlers, Service

_PICK_UP_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 0.1
_QUIET_LOOKS: Final = 10
_HOLD_SECONDS: Final = 0.5
_STATUS_SECONDS: Final = 1.0
_ENDING: Final = "the service is shutting down; try again"


class _Abandoned(logging.Filter):
    """Drops gRPC's errors about answers to callers that have left."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is of something else."""
        return not str(record.msg).startswith("ExecuteBatchError raised in core by servicer method")


# The boundary logs such calls itself, as CANCELLED.
logging.getLogger("grpc._cython.cygrpc").addFilter(_Abandoned())


class GrpcioHost:
    """One listening server with health and reflection, NOT_SERVING until :meth:`set_serving`.

    Args:
        settings: settings of the service.
        services: services to host.
        guards: guards that the boundary applies to every call.
        certificates: certificates to encrypt with, which other code keeps up to date; if missing, those that the
            settings name, as they are now.

    Raises:
        UnusableCertificate: the certificate that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: HostSettings,
        services: Sequence[Service],
        guards: Guards,
        certificates: Certificates | None = None,
    ) -> None:
        self._settings = settings
        self._certificates = certificates or Certificates.of(settings.tls())
        self._credentials: grpc.ServerCredentials | None = None
        self._server = grpc.aio.server(options=_options(settings))
        self._arrivals = Arrivals(guards)
        self._hosted = HostedServices(settings, services, GrpcioTransport(self._server, self._arrivals), guards)

    async def start(self) -> str:
        """Listen; return the address with the actual port.

        Raises:
            CannotListen: the address is not available.
        """
        await self.set_serving(False)
        host, port = self._settings.host, self._settings.port
        # gRPC does not say why it cannot listen, and writes its own log lines. Workers share a port that is reserved.
        if self._settings.membership is None and (cause := await cause_of_refusal(host, port)) is not None:
            raise cannot_listen(host, port, cause)
        try:
            port = self._listen(address_of(host, port))
        except RuntimeError as error:
            raise cannot_listen(host, port, await cause_of_refusal(host, port)) from error
        await self._server.start()
        await self._hosted.open_health_port()
        return address_of(host, port)

    async def set_serving(self, serving: bool) -> None:
        """Answer health checks with SERVING or NOT_SERVING."""
        await self._hosted.set_serving(serving)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, wait up to ``grace`` seconds for those in flight, then end the rest."""
        # The server cancels calls that have arrived and are not yet picked up, so those are admitted first. If calls do
        # not cease, they are held until no more arrive, and refused once their callers can only go elsewhere.
        await _for_a_while(grace, self._arrivals.wait_until_quiet(_QUIET_SECONDS))
        await _for_a_while(max(grace, _HOLD_SECONDS), self._arrivals.hold(_QUIET_SECONDS))
        self._hosted.end_watches()
        # gRPC ends calls as CANCELLED, although their callers have not cancelled them; so they are ended here.
        stopped = asyncio.ensure_future(self._server.stop(grace + _STATUS_SECONDS))
        # The stop begins in the next iteration of the event loop.
        await asyncio.sleep(0)
        self._arrivals.refuse()
        self._hosted.boundary.end_streams()
        await asyncio.wait({stopped}, timeout=grace)
        self._arrivals.end_calls()
        await stopped
        await self._hosted.close()

    def _listen(self, wanted: str) -> int:
        certificates = self._certificates
        if certificates is None:
            return self._server.add_insecure_port(wanted)
        material = certificates.material
        # gRPC consults the credentials before every handshake, and does not keep them alive.
        self._credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(material),
            # The fetcher may return ``None``, despite the published types.
            _Fetcher(certificates, material),  # type: ignore[arg-type]
            require_client_authentication=material.authority is not None,
        )
        return self._server.add_secure_port(wanted, self._credentials)


class Arrivals:
    """Calls that arrive while the service ends.

    Args:
        guards: guards whose admission counts the calls in flight.
    """

    def __init__(self, guards: Guards) -> None:
        self._admission = guards.admission
        self._arrival = asyncio.Event()
        self._closing: asyncio.Event | None = None
        self._served: set[_GrpcioExchange] = set()

    async def pass_in(self) -> _Refusal | None:
        """Return ``None`` if a call may be served; while the service ends, wait and return the refusal."""
        self._arrival.set()
        if self._closing is None:
            return None
        await self._closing.wait()
        return _Refusal(StatusCode.UNAVAILABLE, _ENDING, ((REQUEST_ID_KEY, request_id_from(None)),))

    async def wait_until_quiet(self, seconds: float) -> None:
        """Return once no call is in flight and none has arrived for ``seconds``."""
        await self._admission.wait_until_idle()
        while await self._arrives_within(seconds):
            await self._admission.wait_until_idle()

    async def hold(self, seconds: float) -> None:
        """Hold calls that arrive from now on; return once none has arrived for ``seconds``."""
        self._closing = self._closing or asyncio.Event()
        while await self._arrives_within(seconds):
            pass

    def refuse(self) -> None:
        """Refuse the calls that are held, and all later ones."""
        self._closing = self._closing or asyncio.Event()
        self._closing.set()

    async def response(self, method: GuardedMethod, data: bytes, context: Any) -> bytes | _Refusal:
        """Serve a call, and return its outcome."""
        exchange = _GrpcioExchange(context)
        self._served.add(exchange)
        try:
            method(exchange, data)
            return await exchange.outcome()
        finally:
            self._served.discard(exchange)

    def end_calls(self) -> None:
        """End the calls that are still being served."""
        for exchange in list(self._served):
            exchange.fail(StatusCode.UNAVAILABLE, _ENDING, ((REQUEST_ID_KEY, request_id_from(None)),))
            exchange.end(Ended.CALLER_LEFT)

    async def _arrives_within(self, seconds: float) -> bool:
        self._arrival.clear()
        # After a long iteration, the event loop runs timers before it picks up what has arrived in the meantime.
        for _ in range(_QUIET_LOOKS):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds / _QUIET_LOOKS):
                    return await self._arrival.wait()
        return False


class GrpcioTransport:
    """A :class:`~serving.transport.boundary.Transport` on grpcio's server."""

    def __init__(self, server: grpc.aio.Server, arrivals: Arrivals) -> None:
        self._server = server
        self._arrivals = arrivals

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register handlers that look up a method by its name."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Handlers) -> None:
        """Register the same handlers as a table of one service's methods."""
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_guarded_methods(self, service_name: str, methods: Mapping[str, GuardedMethod]) -> None:
        """Register methods with one message each way."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            # Bytes in, bytes out: a message that cannot be parsed is then a ServingError like any other.
            name: grpc.unary_unary_rpc_method_handler(_behaviour(method, self._arrivals))
            for name, method in methods.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))
        self._server.add_registered_method_handlers(service_name, handlers)


class _Refusal(NamedTuple):
    """The status that a call ends with."""

    code: StatusCode
    message: str
    metadata: Metadata


class _GrpcioExchange(ContextExchange, Awaited["bytes | _Refusal"]):
    """An :class:`~serving.transport.exchange.Exchange` that a coroutine of grpcio waits for."""

    def __init__(self, context: Any) -> None:
        ContextExchange.__init__(self, context)
        Awaited.__init__(self, self.caller_deadline())

    def answer(self, response: bytes, metadata: RawMetadata = ()) -> None:
        """Send the response."""
        if not self.has_outcome:
            self._context.set_trailing_metadata(tuple((key.decode(), value.decode()) for key, value in metadata))
            self.give(response)

    def fail(self, code: StatusCode, message: str, metadata: Metadata = ()) -> None:
        """Send a status instead."""
        self.give(_Refusal(code, message, metadata))


def _behaviour(method: GuardedMethod, arrivals: Arrivals) -> Any:
    async def behaviour(data: bytes, context: Any) -> bytes:
        # grpcio keeps the error that ends the call in the context. A frame of that error's traceback that references
        # the context would form a cycle with it: a service that refuses many calls would stall again and again while
        # the garbage collector scans their remains.
        try:
            response = await arrivals.pass_in() or await arrivals.response(method, data, context)
            if isinstance(response, bytes):
                return response
            context.set_trailing_metadata(response.metadata)
            await context.abort(response.code, response.message)
        finally:
            del context
        raise AssertionError("abort never returns")

    return behaviour


async def _for_a_while(grace: float, wait: Awaitable[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(grace, _PICK_UP_SECONDS)):
            await wait


class _Fetcher:
    """Called by gRPC before every handshake, in a separate thread, one at a time: returns each change only once."""

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


def _options(settings: HostSettings) -> Sequence[tuple[str, Any]]:
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_concurrent_streams", settings.max_streams_per_connection),
        # Clients respect the bound themselves; with this on, the server resets streams at random close to the bound.
        ("grpc.http.overload_protection", 0),
        # Calls that arrive faster than they are picked up wait here; gRPC would cancel those beyond a thousand.
        ("grpc.server.max_pending_requests", settings.max_in_flight),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_in_flight),
        # Two services on one port would share its calls at random; only workers of one service may do so.
        ("grpc.so_reuseport", int(settings.membership is not None)),
        # Periodic reconnection lets clients find new replicas: gRPC looks up a name again when a connection ends.
        ("grpc.max_connection_age_ms", round(settings.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", 60 * 1000),
        # Detects vanished callers; a caller that wants to detect a vanished server may ping twice a second.
        ("grpc.keepalive_time_ms", 30 * 1000),
        ("grpc.keepalive_timeout_ms", 10 * 1000),
        ("grpc.http2.ping_timeout_ms", 10 * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
        # A cancelled call counts towards its caller until the caller has answered a ping: this slows down endless
        # cancellations.
        ("grpc.http2.ping_on_rst_stream_percent", 100),
        ("grpc.server_handshake_timeout_ms", 10 * 1000),
    )
