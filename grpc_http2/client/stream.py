"""What a connection tells a call of the call's stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from grpc import StatusCode

from grpc_http2.wire import Header

Headers = Sequence[Header]


_HEADER_BYTES: Final = 32


def size_of(headers: Headers) -> int:
    """Return the size of headers as HTTP/2 counts it, in bytes."""
    return _HEADER_BYTES * len(headers) + sum([len(name) + len(value) for name, value in headers])


class Failure(NamedTuple):
    """Why an attempt at a call has ended without the trailers of a server."""

    code: StatusCode
    details: str
    unseen: bool = False
    """Whether the server has certainly done nothing for the call."""


class Stream(Protocol):
    """One attempt at a call, as its connection sees it. The methods return soon, and never wait."""

    def headers_received(self, headers: Headers) -> None:
        """Take the headers of the answer."""

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer's body. The stream gives its bytes back with ``Connection.consumed``."""

    def trailers_received(self, headers: Headers) -> None:
        """Take the end of the answer; without trailers there are no headers."""

    def stream_failed(self, failure: Failure) -> None:
        """Take that nothing more comes."""

    def room_made(self) -> None:
        """Take that the part of the request that waits to be written has become small."""
