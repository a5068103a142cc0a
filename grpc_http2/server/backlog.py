"""Back pressure on responses: what a caller has not read, and the writers and calls that wait until it has."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sized
from typing import Protocol

from grpc import StatusCode

from grpc_http2.engine import Connection, EngineError
from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.pacing import CallPacing
from grpc_http2.server.protection.request_bytes import RequestBytes
from grpc_http2.turn import Turn, Writer
from grpc_http2.wire import WireError


class Unsent(Protocol):
    """Server, as its connections count their responses there."""

    unsent_bytes: int
    """Response bytes of all connections that callers have not read."""


class BackloggedConnection(Writer, Protocol):
    """Connection, as its backlog sees it."""

    @property
    def streams(self) -> Sized:
        """Open streams."""


class Backlog:
    """Backlog of one connection, which is passed with each call: a reference kept here would form a cycle.

    Args:
        server: counts the unsent bytes of all connections.
        limits: limits on unsent bytes.
        turn: serves the calls.
        engine: engine of the connection.
        request_bytes: request bytes that are held for the connection.
    """

    __slots__ = (
        "_engine",
        "_limits",
        "_parked",
        "_request_bytes",
        "_room",
        "_server",
        "_turn",
        "_unsent_bytes",
        "is_paused",
        "pacing",
        "writers",
    )

    def __init__(
        self,
        server: Unsent,
        limits: ServerLimits,
        turn: Turn,
        engine: Connection,
        request_bytes: RequestBytes,
    ) -> None:
        self._server = server
        self._limits = limits
        self._turn = turn
        self._engine = engine
        self._request_bytes = request_bytes
        self.pacing = CallPacing(limits.max_unsent_connection_bytes)
        """Number of calls that are served in one turn."""
        self.is_paused = False
        """Whether the transport takes no bytes: the caller does not read."""
        self._room = self.pacing.calls_of_a_turn()
        self._unsent_bytes = 0
        self.writers: dict[int, asyncio.Future[None]] = {}
        """Writers that wait for room, by the number of their stream."""
        self._parked: deque[ServerCall] = deque()

    def serve(self, call: ServerCall) -> None:
        """Serve a call: in this turn if the caller reads its responses, otherwise once it does."""
        if (
            self._parked
            or self._room <= 0
            or self.is_paused
            or (self._unsent_bytes and self._is_congested(call.connection))
        ):
            self._parked.append(call)
            self._turn.write(call.connection)
            if self._request_bytes.are_too_many():
                call.refuse_request(
                    WireError(StatusCode.RESOURCE_EXHAUSTED, "the answers of earlier calls are not read")
                )
        else:
            self._room -= 1
            self._turn.serve(call)

    def written(self, connection: BackloggedConnection) -> None:
        """Continue after a write: wake writers that have room, and serve calls that waited."""
        if self.writers:
            self._wake_writers()
        unsent = self._engine.queued_body_size()
        if unsent != self._unsent_bytes:
            self._count_unsent(unsent)
        self._room = self.pacing.calls_of_a_turn()
        if self._parked and not (self.is_paused or (unsent and self._is_congested(connection))):
            self._unpark(connection)

    def unsent(self, stream_id: int) -> int:
        """Return the bytes of a response that are not sent yet."""
        try:
            return self._engine.queued_body_size(stream_id)
        except (EngineError, ValueError):
            return 0

    def has_room(self, stream_id: int) -> bool:
        """Return whether the caller has read enough of a response to make room for more."""
        return self.unsent(stream_id) <= self._limits.max_unsent_bytes

    async def wait_for_room(self, stream_id: int) -> None:
        """Return once the response has room for more, or its stream is closed."""
        if not self.has_room(stream_id):
            writer = self.writers[stream_id] = asyncio.get_running_loop().create_future()
            await writer

    def stream_closed(self, stream_id: int) -> None:
        """Wake the writer of a stream that is closed."""
        writer = self.writers.pop(stream_id, None)
        if writer is not None and not writer.done():
            writer.set_result(None)

    def drop_parked(self) -> None:
        """Forget the calls that wait to be served: the connection ends."""
        self._parked.clear()

    def clear(self) -> None:
        """Count nothing as unsent: no caller is left to read it."""
        self._count_unsent(0)

    def _is_congested(self, connection: BackloggedConnection) -> bool:
        limits = self._limits
        is_full = self._server.unsent_bytes > limits.max_unsent_server_bytes
        most = limits.max_unsent_bytes if is_full else limits.max_unsent_connection_bytes
        return len(connection.streams) > 1 and self._engine.queued_body_size() > most

    def _unpark(self, connection: BackloggedConnection) -> None:
        while self._parked and self._room > 0:
            call = self._parked.popleft()
            if not call.ended:
                self._room -= 1
                self._turn.serve(call)
        # However these calls end, the next turn continues from here.
        self._turn.write(connection)

    def _count_unsent(self, unsent: int) -> None:
        self._server.unsent_bytes += unsent - self._unsent_bytes
        self._unsent_bytes = unsent

    def _wake_writers(self) -> None:
        for stream_id in list(self.writers):
            if self.has_room(stream_id):
                self.stream_closed(stream_id)
