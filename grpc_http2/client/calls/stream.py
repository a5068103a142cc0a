"""Interface through which a connection notifies a call of events on its stream."""

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
