"""The request messages of a call that takes a stream of messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc import StatusCode

from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.protection.idle_reads import READ_BYTES
from grpc_http2.wire import IDENTITY, MessageReader, WireError


def deserialized(deserialize: Callable[[bytes], Any] | None, message: bytes) -> Any:
    """Return the message in the form that its handler expects. Raises WireError."""
    if deserialize is None:
        return message
    try:
        return deserialize(message)
    except Exception as error:
        raise WireError(StatusCode.INTERNAL, "the request is not a valid message of this method") from error


class RequestStream:
    """Messages in the order of arrival.

    The caller may send ahead as much as the flow-control window of its stream holds. Reading a message replenishes the
    window, so that a slow reader slows its caller down.

    Args:
        call: call to which the requests belong.
        deserialize: converts bytes to a message; ``None`` leaves bytes unchanged.
    """

    def __init__(self, call: ServerCall, deserialize: Callable[[bytes], Any] | None) -> None:
        self._call = call
        self._deserialize = deserialize
        self._reader = MessageReader(
            call.connection.limits.max_message_bytes, call.head.headers.get(b"grpc-encoding", IDENTITY)
        )
        self._chunks: deque[bytes] = deque()
        self._complete = False
        self._more: asyncio.Future[None] | None = None

    def feed(self, data: bytes, *, last: bool) -> None:
        """Handle a part of the request."""
        if data:
            self._chunks.append(data)
        self._complete = self._complete or last
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    async def read(self) -> Any:
        """Return the next message, or ``grpc.aio.EOF``. Raises WireError."""
        while (message := self._reader.next()) is None:
            if self._chunks:
                chunk = self._chunks.popleft()
                self._call.connection.make_room(self._call.stream_id, len(chunk))
                self._reader.take(chunk)
            elif self._complete:
                self._reader.end()
                return grpc.aio.EOF
            else:
                self._more = asyncio.get_running_loop().create_future()
                await self._more
        self._call.connection.charges.idle_reads.credit += READ_BYTES
        return deserialized(self._deserialize, message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def close(self) -> None:
        """Return unread bytes to the flow-control window of the caller's connection."""
        while self._chunks:
            self._call.connection.make_room(self._call.stream_id, len(self._chunks.popleft()))
