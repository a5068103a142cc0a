"""Interfaces between a call, the connection that carries its attempt, and the servers that it is assigned to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from grpc import StatusCode

from grpc_http2.wire import Header

Headers = Sequence[Header]


_HEADER_BYTES: Final = 32


def size_of(headers: Headers) -> int:
    """Return the size of headers in bytes, as HTTP/2 counts it."""
    return _HEADER_BYTES * len(headers) + sum([len(name) + len(value) for name, value in headers])


class Failure(NamedTuple):
    """Reason why an attempt of a call ended without trailers from a server."""

    code: StatusCode
    details: str
    unseen: bool = False
    """Whether the server has certainly not processed the call."""


class Stream(Protocol):
    """One attempt of a call, as its connection sees it. The methods return soon and never wait."""

    def headers_received(self, headers: Headers) -> None:
        """Handle the headers of the response."""

    def data_received(self, data: bytes) -> None:
        """Handle a part of the response body. The stream returns its bytes with ``Connection.consumed``."""

    def trailers_received(self, headers: Headers) -> None:
        """Handle the end of the response; ``headers`` is empty if there were no trailers."""

    def stream_failed(self, failure: Failure) -> None:
        """Handle the end of the attempt without trailers."""

    def room_made(self) -> None:
        """Handle the notification that only a small part of the request is still queued."""


class StreamConnection(Protocol):
    """Connection to a server, as the calls on it see it."""

    def begin(self, stream: Stream, headers: Headers, body: bytes, *, ends: bool) -> int:
        """Open a stream, and return its number.

        Raises:
            EngineError: the connection opens no further streams.
        """

    def send(self, number: int, body: bytes, *, ends: bool) -> None:
        """Send a further part of a request."""

    def is_full(self, number: int) -> bool:
        """Return whether too much of a request is still queued; if so, its stream is notified once less is queued."""

    def consumed(self, number: int, amount: int) -> None:
        """Return ``amount`` bytes to the flow-control windows, so that the server may send as many more."""

    def forget(self, number: int, *, reset: bool) -> None:
        """Stop notifying a stream; ``reset``: reset it, whatever its state."""

    def retire(self) -> None:
        """Open no further streams, and close once the existing ones have ended."""


class Assignable(Protocol):
    """Call, as seen by the assignment to servers."""

    path: str
    """Path of the method."""
    affinity: str | None
    """Affinity: calls of one affinity go to one server; calls without one may go to any."""
    wait_for_ready: bool
    """Whether the call waits while no server can be reached."""
    waits_in: dict[Assignable, None] | None
    """Queue in which the call waits, so that the call can leave it."""

    def attach(self, connection: StreamConnection, headers: Sequence[Header]) -> None:
        """Start an attempt on a connection, with ``headers`` before those of the call."""

    def attempt_failed(self, failure: Failure) -> None:
        """Handle the failure of this attempt."""
