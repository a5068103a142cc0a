"""Open streams of a connection, and their ends."""

from __future__ import annotations

from typing import Protocol

from grpc_http2.engine import Connection, EngineError, ErrorCode
from grpc_http2.server.backlog import Backlog
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.policing import IdleBytes


class ServerStream(Protocol):
    """A request and its response, on a stream of a connection."""

    request_ended: bool
    """Whether the caller has sent its whole request."""

    def begin(self) -> None:
        """Handle the request headers."""

    def receive(self, data: bytes, *, last: bool) -> None:
        """Handle a part of the request."""

    def leave(self) -> None:
        """Handle the end of the stream."""

    def look(self, now: float) -> None:
        """Check time limits. ``now`` is in seconds of ``time.monotonic()``."""


class OpenStreams(dict[int, ServerStream]):
    """Received requests whose streams are open, by the number of the stream.

    Args:
        engine: engine of the connection.
        limits: limits of the server.
        backlog: responses that are not sent yet.
        idle_bytes: unproductive bytes, some of which are expected after a reset.
    """

    __slots__ = ("_backlog", "_engine", "_idle_bytes", "_limits", "unfinished")

    def __init__(self, engine: Connection, limits: ServerLimits, backlog: Backlog, idle_bytes: IdleBytes) -> None:
        super().__init__()
        self._engine = engine
        self._limits = limits
        self._backlog = backlog
        self._idle_bytes = idle_bytes
        self.unfinished: list[int] = []
        """Streams whose response is complete, while the caller is still sending its request."""

    def close(self, stream_id: int) -> None:
        """Handle the end of a stream. Streams that were never announced may close, too."""
        stream = self.pop(stream_id, None)
        if stream is not None:
            stream.leave()
        if self._backlog.writers:
            self._backlog.stream_closed(stream_id)

    def close_all(self) -> None:
        """Handle the end of the connection: no caller is left to answer."""
        self._backlog.drop_parked()
        for stream_id in list(self):
            self.close(stream_id)

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Reset a stream."""
        stream = self.get(stream_id)
        if stream is not None and not stream.request_ended:
            # Until the reset reaches the caller, the caller continues to send, and the engine does not report the data.
            self._idle_bytes.excuse(self._limits.stream_window_bytes)
        try:
            self._engine.reset_stream(stream_id, code)
        except EngineError:
            return

    def reset_unfinished(self) -> bool:
        """Reset the streams of callers that have their response and are still sending; return whether any was reset.

        REQUIRES: all writable data was taken from the engine; a reset before that discards the response.
        """
        before = len(self.unfinished)
        waiting = []
        for stream_id in self.unfinished:
            if self._backlog.unsent(stream_id):
                waiting.append(stream_id)
            elif stream_id in self:
                self.reset(stream_id, ErrorCode.NO_ERROR)
        self.unfinished = waiting
        return len(waiting) < before
