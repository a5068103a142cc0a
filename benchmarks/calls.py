"""One unary call as bytes: the request that the load sends, and the check of its answer."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc

_PAUSE_SECONDS: Final = 0.2

# Bypass proxies, so that only the system itself answers, and reconnect quickly to a server that is still starting.
_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 500))


class WrongAnswer(Exception):
    """A call failed, or its answer is not the expected one. Nothing is timed after that."""


@dataclass(frozen=True, slots=True)
class Call:
    """A unary call and the check of its answer."""

    address: str
    """``host:port``."""
    method: str
    """``/package.Service/Method``."""
    request: bytes
    """Message without gRPC framing."""
    verify: Callable[[bytes], None]
    """Function that raises :class:`WrongAnswer` if the answer's message is not the expected one."""
    documents: int = 1
    """Number of documents in the request."""
    metadata: tuple[tuple[str, str], ...] = ()
    """Headers in addition to those of gRPC."""
    authority: bytes | None = None
    """Authority's certificate, in PEM, that the server's certificate is verified against; ``None``: no TLS."""

    @property
    def framed(self) -> bytes:
        """The request with gRPC framing, as sent in HTTP/2 data."""
        return framed(self.request)


def framed(message: bytes) -> bytes:
    """Return an uncompressed gRPC message: a zero byte, the length as 4 big-endian bytes, the message."""
    return struct.pack(">BI", 0, len(message)) + message


def ask(call: Call, timeout: float = 30.0) -> bytes:
    """Send the exact bytes of ``call`` through a gRPC client and return the answer's message.

    Raises:
        WrongAnswer: the status is not OK, or the answer is not the expected one.
    """
    with _channel(call) as channel:
        try:
            ask_once: Any = channel.unary_unary(call.method)  # without serializers: bytes in, bytes out
            answer: bytes = ask_once(call.request, timeout=timeout, wait_for_ready=True, metadata=call.metadata)
        except grpc.RpcError as error:
            raise WrongAnswer(f"{call.method} ended with {error.code().name}: {error.details()}") from error
    call.verify(answer)
    return answer


def _channel(call: Call) -> grpc.Channel:
    if call.authority is None:
        return grpc.insecure_channel(call.address, options=_OPTIONS)
    return grpc.secure_channel(call.address, grpc.ssl_channel_credentials(call.authority), options=_OPTIONS)


def ask_until_right(call: Call, seconds: float, check_alive: Callable[[], None]) -> None:
    """Repeat ``call`` to a system that is still starting, and return once the answer is right.

    Args:
        call: the call to make.
        seconds: time limit of the start, in seconds.
        check_alive: function that raises if the system has ended by itself.

    Raises:
        WrongAnswer: there was no right answer within ``seconds``; the message describes the last attempt.
    """
    give_up = time.monotonic() + seconds
    while True:
        check_alive()
        try:
            ask(call, timeout=5.0)
        except WrongAnswer:
            if time.monotonic() > give_up:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
