"""The headers of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from grpc import StatusCode

from grpc_http2.wire import DEFLATE, GZIP, IDENTITY, Header, WireError, header_bytes, seconds_of_timeout

if TYPE_CHECKING:
    from grpc_http2.server.calls.methods import Method

_GRPC: Final = b"application/grpc"
_ENCODINGS: Final = frozenset({IDENTITY, DEFLATE, GZIP})


class RequestHead:
    """Headers of a request, parsed once. Calls with the same headers share one instance.

    Args:
        pairs: headers in the order of arrival.
    """

    __slots__ = ("headers", "method", "pairs", "seconds")

    def __init__(self, pairs: Sequence[Header]) -> None:
        self.pairs = pairs
        # The first of several headers with one name counts.
        self.headers: Mapping[bytes, bytes] = dict(reversed(pairs))
        self.seconds: float | None = None
        """Timeout that the caller sets for the call, in seconds; ``None``: the caller sets none."""
        self.method: Method | None = None
        """Method that serves the call, once it has been looked up."""

    @property
    def is_grpc(self) -> bool:
        """Whether the request is a gRPC call; otherwise, the request is plain HTTP."""
        kind = self.headers.get(b"content-type", b"")
        is_grpc = kind[:16] == _GRPC and kind[16:17] in (b"", b"+", b";")
        return is_grpc and self.headers.get(b":method") == b"POST"

    @property
    def path(self) -> str:
        """Path of the request."""
        return self.headers[b":path"].decode("latin-1")

    def check(self, max_bytes: int) -> None:
        """Parse gRPC's headers.

        Raises:
            WireError: the headers exceed ``max_bytes``, are malformed, or name an unknown encoding.
        """
        if header_bytes(self.pairs) > max_bytes:
            raise WireError(
                StatusCode.RESOURCE_EXHAUSTED, f"the metadata is larger than the limit of {max_bytes} bytes"
            )
        timeout = self.headers.get(b"grpc-timeout")
        if timeout is not None:
            self.seconds = seconds_of_timeout(timeout)
        if self.headers.get(b"grpc-encoding", IDENTITY) not in _ENCODINGS:
            raise WireError(
                StatusCode.UNIMPLEMENTED,
                "the grpc-encoding is not supported; send messages plain, or compressed with gzip or deflate",
            )
