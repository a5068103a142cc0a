"""What a servicer sees of its call, as grpcio's asyncio server shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

import grpc
from grpc import StatusCode

from grpc_http2.wire import ENCODINGS, GZIP, Header, Metadatum, framed, metadata_headers, metadata_of
from serving.transport.asgi import callers
from serving.transport.asgi.watch import CallerLeft, CallWatch

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
ReadMessage: TypeAlias = Callable[[], Awaitable[Any]]


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of one call.

    Args:
        scope: of the ASGI request.
        send: sends an ASGI event.
        watch: ends the call.
    """

    _deadline: float | None = None
    _gzip = False
    _next_is_plain = False
    _metadata: tuple[Metadatum, ...] | None = None
    _callbacks: tuple[Callable[[Any], None], ...] = ()
    _read_message: ReadMessage | None = None
    _write_message: Callable[[Any], bytes] | None = None
    accepts_gzip = False
    """Whether the caller reads compressed messages."""
    headers_sent = False
    aborted = False
    ended = False
    was_cancelled = False
    status_code: StatusCode | None = None
    status_details = ""
    trailers: tuple[Metadatum, ...] = ()

    def __init__(self, scope: Mapping[str, Any], send: Send, watch: CallWatch) -> None:
        self._scope = scope
        self._send = send
        self.watch = watch

    # What servicers call.

    async def read(self) -> Any:
        """Return the next message of the caller, or ``grpc.aio.EOF``."""
        if self._read_message is None:
            raise grpc.aio.UsageError("a unary request has been read")
        return await self._read_message()

    async def write(self, message: Any) -> None:
        """Send one message of a stream."""
        if self._write_message is None:
            raise grpc.aio.UsageError("a unary response is returned, not written")
        await self.send_message(self._write_message(message))

    async def abort(
        self, code: StatusCode, details: str = "", trailing_metadata: Iterable[Metadatum] | None = None
    ) -> NoReturn:
        """End the call with a status."""
        if code is StatusCode.OK:
            raise ValueError("a call is not aborted with OK")
        self.status_code, self.aborted = code, True
        # What was set before stands where nothing is said, as it does in grpcio.
        self.status_details = details or self.status_details
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise grpc.aio.AbortError("the servicer ended the call")

    async def send_initial_metadata(self, initial_metadata: Iterable[Metadatum]) -> None:
        """Send metadata before the first message."""
        if self.headers_sent:
            raise grpc.aio.UsageError("the initial metadata have been sent")
        # By the ASGI specification, headers may wait for the first piece of the body.
        await self._emit(self._start(metadata_headers(initial_metadata)), _body(b"", more=True))

    def set_trailing_metadata(self, trailing_metadata: Iterable[Metadatum]) -> None:
        """Set the metadata that are sent with the status."""
        self.trailers = tuple(trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata."""
        if self._metadata is None:
            self._metadata = metadata_of(self._scope["headers"])
        return self._metadata

    def set_code(self, code: StatusCode) -> None:
        """Set the status with which the call ends."""
        self.status_code = code

    def set_details(self, details: str) -> None:
        """Set the message of the status."""
        self.status_details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress what follows, if the caller reads it."""
        if self.headers_sent:
            raise RuntimeError("compression is set before the first message")
        self._gzip = compression is not grpc.Compression.NoCompression and self.accepts_gzip

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._next_is_plain = True

    def peer(self) -> str:
        """Return the caller's address as gRPC writes it."""
        client = self._scope.get("client")
        if not client:
            return "unknown"
        host, port = client
        return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return who the caller has proved to be; ``None`` without TLS."""
        return None

    def peer_identity_key(self) -> str | None:
        """Return the name of that proof; ``None`` without TLS."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what TLS knows of the caller: the certificate, by the name that gRPC has for it."""
        told = self.metadatum(callers.HEADER)
        certificate = None if told is None else callers.certificate_of(told)
        return {} if certificate is None else {"x509_pem_cert": (certificate,)}

    def time_remaining(self) -> float:
        """Return the seconds until the caller's deadline; ``None`` where there is none."""
        # The published types forget that a call may have no deadline.
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())  # type: ignore[return-value]

    def trailing_metadata(self) -> Any:
        """Return the metadata that will be sent with the status."""
        return self.trailers

    def code(self) -> StatusCode:
        """Return the status that was set; ``None`` before."""
        return self.status_code  # type: ignore[return-value]  # as grpcio does it, whatever its types say

    def details(self) -> str:
        """Return the message of the status."""
        return self.status_details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback`` with this context when the call ends."""
        self._callbacks += (callback,)

    def cancelled(self) -> bool:
        """Whether the caller left, or its deadline passed."""
        return self.was_cancelled

    def done(self) -> bool:
        """Whether the call has ended."""
        return self.ended

    # What the application calls.

    @property
    def path(self) -> str:
        """The path of the call."""
        return str(self._scope["path"])

    def set_deadline(self, seconds: float) -> None:
        """Set the caller's deadline, in seconds from now."""
        self._deadline = time.monotonic() + seconds

    def metadatum(self, key: bytes) -> str | None:
        """Return the value of one key of the caller's metadata, without a look at the others."""
        for name, value in self._scope["headers"]:
            if name == key:
                return str(value, "latin-1")
        return None

    def stream(self, read_message: ReadMessage | None, write_message: Callable[[Any], bytes] | None) -> None:
        """Let the servicer read and write messages of streams."""
        self._read_message, self._write_message = read_message, write_message

    async def send_message(self, message: bytes) -> None:
        """Send one message, and the headers before the first."""
        if self.aborted:
            raise grpc.aio.AbortError("the servicer has ended the call")
        body = framed(message, compressed=self._gzip and not self._next_is_plain)
        self._next_is_plain = False
        await self._emit(*self._start_once(), _body(body, more=True))

    async def send_status(self, trailers: list[Header]) -> None:
        """End the call. Where nothing was sent before, one block of headers is all: then callers may try again."""
        if self.headers_sent:
            await self._emit(_body(b"", more=False), _trailers(trailers))
        else:
            await self._emit(self._start(trailers, trailers=False), _body(b"", more=False))

    async def send_answer(self, message: bytes, trailers: list[Header]) -> None:
        """Send the one message of a unary response and end the call."""
        body = framed(message, compressed=self._gzip and not self._next_is_plain)
        await self._emit(*self._start_once(), _body(body, more=False), _trailers(trailers))

    def end(self) -> None:
        """Tell those who asked that the call has ended."""
        self.ended = True
        for callback in self._callbacks:
            callback(self)

    def _start_once(self) -> tuple[dict[str, Any], ...]:
        return () if self.headers_sent else (self._start([]),)

    def _start(self, metadata: list[Header], *, trailers: bool = True) -> dict[str, Any]:
        self.headers_sent = True
        headers = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ENCODINGS), *metadata]
        if self._gzip:
            headers.append((b"grpc-encoding", GZIP))
        return {"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers}

    async def _emit(self, *events: dict[str, Any]) -> None:
        try:
            for event in events:
                sent = self._send(event)
                await (_taken(sent) if isinstance(sent, asyncio.Future) else sent)
        except OSError as error:
            # By the ASGI specification, what is sent to a caller who has left.
            raise CallerLeft from error


def _body(data: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _trailers(headers: list[Header]) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": headers, "more_trailers": False}


async def _taken(sent: asyncio.Future[None]) -> None:
    """Wait until the server has taken an event; it sets its future whatever happens, and must not find it cancelled."""
    # That nobody waits for an error any more is no news for the log.
    sent.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait((sent,))
    sent.result()
