"""What the headers of a request say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from grpc import StatusCode

from grpc_http2.wire import DEFLATE, GZIP, IDENTITY, Header, WireError, header_bytes, seconds_of_timeout

if TYPE_CHECKING:
    from grpc_http2.server.methods import Method

_GRPC: Final = b"application/grpc"
_ENCODINGS: Final = frozenset({IDENTITY, DEFLATE, GZIP})


class RequestHead:
    """The headers of a request, read once. Shared by calls whose headers are the same.

    Args:
        pairs: as they came.
    """

    __slots__ = ("headers", "method", "pairs", "seconds")

    def __init__(self, pairs: Sequence[Header]) -> None:
        self.pairs = pairs
        # Of several headers with one name the first one counts.
        self.headers: Mapping[bytes, bytes] = dict(reversed(pairs))
        self.seconds: float | None = None
        """The time that the caller gives the call, in seconds; ``None``: it does not say."""
        self.method: Method | None = None
        """What serves the call, once that was looked up."""

    @property
    def is_grpc(self) -> bool:
        """Whether the request is a call of gRPC; otherwise it is plain HTTP."""
        kind = self.headers.get(b"content-type", b"")
        is_grpc = kind[:16] == _GRPC and kind[16:17] in (b"", b"+", b";")
        return is_grpc and self.headers.get(b":method") == b"POST"

    @property
    def path(self) -> str:
        """The path of the request."""
        return self.headers[b":path"].decode("latin-1")

    def check(self, max_bytes: int) -> None:
        """Read what gRPC says in headers.

        Raises:
            WireError: there are more than ``max_bytes`` of metadata, or they are not well written.
        """
        if header_bytes(self.pairs) > max_bytes:
            raise WireError(
                StatusCode.RESOURCE_EXHAUSTED, f"the metadata are larger than the {max_bytes} bytes that are taken"
            )
        timeout = self.headers.get(b"grpc-timeout")
        if timeout is not None:
            self.seconds = seconds_of_timeout(timeout)
        if self.headers.get(b"grpc-encoding", IDENTITY) not in _ENCODINGS:
            raise WireError(StatusCode.UNIMPLEMENTED, "messages are read plain, or compressed with gzip or deflate")
