"""Context of a servicer's call, with the interface of grpcio's asyncio server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc import StatusCode

from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.calls.request_stream import RequestStream
from grpc_http2.wire import Metadatum, metadata_headers


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """The context of one call.

    Args:
        call: the call.
        requests: stream of requests, if the call has one.
        write_message: serializer of responses, if the call streams them.
    """

    def __init__(
        self, call: ServerCall, requests: RequestStream | None, write_message: Callable[[Any], bytes] | None
    ) -> None:
        self._call = call
        self._requests = requests
        self._write_message = write_message
        self._metadata: tuple[Metadatum, ...] | None = None
        self._callbacks: tuple[Callable[[Any], None], ...] = ()
        self._aborted = False
        self._ended = False
        self.next_is_plain = False
        self.was_cancelled = False
        self.status_code: StatusCode | None = None
        self.status_details = ""
        self.trailers: tuple[Metadatum, ...] = ()

    async def read(self) -> Any:
        """Return the next message of the caller, or ``grpc.aio.EOF``."""
        if self._requests is None:
            raise grpc.aio.UsageError("a unary request has been read")
        return await self._requests.read()

    async def write(self, message: Any) -> None:
        """Send one message of a stream."""
        if self._write_message is None:
            raise grpc.aio.UsageError("a unary response is returned, not written")
        await self.send_message(self._write_message(message))

    async def send_message(self, message: bytes) -> None:
        """Send one serialized message of a stream; wait while the caller reads more slowly than the servicer writes."""
        if self._aborted:
            raise grpc.aio.AbortError("the servicer has ended the call")
        call = self._call
        call.send_message(message, compressed=call.sends_gzip and not self.next_is_plain)
        self.next_is_plain = False
        if not call.ended:
            await call.connection.drained(call.stream_id)

    async def abort(
        self, code: StatusCode, details: str = "", trailing_metadata: Iterable[Metadatum] | None = None
    ) -> NoReturn:
        """End the call with a status."""
        if code is StatusCode.OK:
            raise ValueError("a call is not aborted with OK")
        self.status_code, self._aborted = code, True
        # Without new details, those that were set before remain, as in grpcio.
        self.status_details = details or self.status_details
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        raise grpc.aio.AbortError("the servicer ended the call")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Iterable[Metadatum]) -> None:
        """Send metadata before the first message."""
        if self._call.headers_sent:
            raise grpc.aio.UsageError("the initial metadata has been sent")
        self._call.send_headers(metadata_headers(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Iterable[Metadatum]) -> None:
        """Set the metadata to send with the status."""
        self.trailers = tuple(trailing_metadata)

    def invocation_metadata(self) -> Any:
        """Return the caller's metadata."""
        if self._metadata is None:
            self._metadata = self._call.metadata()
        return self._metadata

    def set_code(self, code: StatusCode) -> None:
        """Set the status with which the call ends."""
        self.status_code = code

    def set_details(self, details: str) -> None:
        """Set the message of the status."""
        self.status_details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the messages that follow, if the caller accepts compressed messages."""
        if self._call.headers_sent:
            raise RuntimeError("compression is set before the first message")
        self._call.sends_gzip = compression is not grpc.Compression.NoCompression and self._call.accepts_gzip

    def disable_next_message_compression(self) -> None:
        """Send the next message uncompressed."""
        self.next_is_plain = True

    def metadatum(self, key: str) -> str | None:
        """Return the value of one key of the caller's metadata, without reading the others."""
        return self._call.metadatum(key)

    def peer(self) -> str:
        """Return the caller's address in gRPC's notation."""
        return self._call.peer()

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the authenticated identities: ``None``, since a certificate is read from :meth:`auth_context`."""
        return None

    def peer_identity_key(self) -> str | None:
        """Return the key of the identities in :meth:`auth_context`: ``None``, since there are no identities."""
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return the TLS properties of the caller: the certificate, under gRPC's name for it."""
        certificate = self._call.certificate()
        return {} if certificate is None else {"x509_pem_cert": (certificate,)}

    def time_remaining(self) -> float:
        """Return the seconds until the caller's deadline; ``None`` without a deadline."""
        deadline = self._call.deadline
        # The published types do not allow for a call without a deadline.
        return None if deadline is None else max(0.0, deadline - time.monotonic())  # type: ignore[return-value]

    def trailing_metadata(self) -> Any:
        """Return the metadata that will be sent with the status."""
        return self.trailers

    def code(self) -> StatusCode:
        """Return the status that was set; ``None`` if none was set."""
        return self.status_code  # type: ignore[return-value]  # as in grpcio, despite its types

    def details(self) -> str:
        """Return the message of the status."""
        return self.status_details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call ``callback`` with this context when the call ends."""
        self._callbacks += (callback,)

    def cancelled(self) -> bool:
        """Return whether the caller cancelled or disconnected, or the deadline passed."""
        return self.was_cancelled

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._ended

    def end(self) -> None:
        """Mark the call as ended, and call the registered callbacks."""
        self._ended = True
        for callback in self._callbacks:
            callback(self)
