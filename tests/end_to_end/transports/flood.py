"""A bare HTTP/2 caller that asks far more of a server than any client library would."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.end_to_end.transports.callers import path_of
from tests.end_to_end.transports.orders import Order
from tests.end_to_end.transports.wire import framed

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER = 9
_AT_ONCE = 100
SILENCE_SECONDS = 2.0
"""Silence after which a server is assumed to have nothing more to send, in seconds."""

Kind = Callable[[str], Iterator[bytes]]
"""Function that writes the frames of a flood on a method."""

REFUSED_STREAM = 7
CANCEL = 8
ENHANCE_YOUR_CALM = 11


@dataclass
class Reply:
    """Outcome of a flood."""

    sent: int = 0
    """Number of frames of the flood, or pairs of them, that the server allowed to be sent."""
    closed: bool = False
    """Whether the server has closed the connection."""
    farewell: int | None = None
    """Code of the server's GOAWAY."""
    resets: Counter[int] = field(default_factory=Counter)
    """Number of streams that the server has reset, by code."""


def pings(_: str) -> Iterator[bytes]:
    while True:
        yield PingFrame(0, opaque_data=b"12345678").serialize()


def settings(_: str) -> Iterator[bytes]:
    while True:
        yield SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize()


def window_updates(_: str) -> Iterator[bytes]:
    while True:
        yield WindowUpdateFrame(0, window_increment=1).serialize()


def priorities(_: str) -> Iterator[bytes]:
    while True:
        yield PriorityFrame(1, depends_on=0, stream_weight=1).serialize()


def continuations(method: str) -> Iterator[bytes]:
    """Yield headers that never end."""
    _, head = next(heads(method))
    yield head.replace(b"\x01\x04\0\0\0\x01", b"\x01\0\0\0\0\x01")
    while True:
        yield ContinuationFrame(1, hpack.Encoder().encode([("x", "y" * 100)], huffman=False)).serialize()


def empty_data(method: str) -> Iterator[bytes]:
    _, head = next(heads(method))
    yield head
    while True:
        yield DataFrame(1, b"").serialize()


def one_byte_data(method: str) -> Iterator[bytes]:
    """Yield a message that arrives byte by byte."""
    _, head = next(heads(method))
    yield head + DataFrame(1, b"\0\0\x0f\0\0").serialize()
    while True:
        yield DataFrame(1, b"x").serialize()


def streams(method: str) -> Iterator[bytes]:
    """Yield calls that begin and whose message never arrives."""
    for number, head in heads(method):
        del number
        yield head


def resets(method: str) -> Iterator[bytes]:
    """Yield calls that begin and are cancelled at once."""
    for number, head in heads(method):
        yield head + RstStreamFrame(number, error_code=CANCEL).serialize()


def resets_of_whole_calls(method: str) -> Iterator[bytes]:
    """Yield complete calls that are cancelled at once."""
    body = framed(Order(wait="never"))
    for number, head in heads(method):
        message = DataFrame(number, body, flags=["END_STREAM"]).serialize()
        yield head + message + RstStreamFrame(number, error_code=CANCEL).serialize()


def heads(method: str) -> Iterator[tuple[int, bytes]]:
    """Yield the headers of an endless sequence of calls, each with its stream."""
    encoder = hpack.Encoder()
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path_of(method),
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    number = 1
    while True:
        yield number, HeadersFrame(number, encoder.encode(headers.items()), flags=["END_HEADERS"]).serialize()
        number += 2


def flood(address: str, kind: Kind, method: str, most: int, silence: float = SILENCE_SECONDS) -> Reply:
    """Send at most ``most`` items of a flood, unless the server ends it; read replies until the server is silent."""
    host, _, port = address.rpartition(":")
    reply = Reply()
    frames = kind(method)
    with socket.create_connection((host, int(port)), timeout=60.0) as connection:
        try:
            acknowledged = SettingsFrame(0, flags=["ACK"]).serialize()
            connection.sendall(_PREFACE + SettingsFrame(0).serialize() + acknowledged)
            while reply.sent < most:
                connection.sendall(b"".join(next(frames) for _ in range(_AT_ONCE)))
                reply.sent += _AT_ONCE
        except OSError:
            reply.closed = True
        _read(connection, reply, silence)
    return reply


def _read(connection: socket.socket, reply: Reply, silence: float) -> None:
    connection.settimeout(silence)
    received = bytearray()
    try:
        while data := connection.recv(1 << 16):
            received += data
        reply.closed = True
    except TimeoutError:
        """The server has nothing more to send and keeps the connection open."""
    except OSError:
        reply.closed = True
    rest = memoryview(received)
    while len(rest) >= _FRAME_HEADER:
        frame, length = Frame.parse_frame_header(rest[:_FRAME_HEADER])
        body, rest = rest[_FRAME_HEADER : _FRAME_HEADER + length], rest[_FRAME_HEADER + length :]
        if len(body) < length:
            return
        frame.parse_body(body)
        if isinstance(frame, GoAwayFrame):
            reply.farewell = frame.error_code
        elif isinstance(frame, RstStreamFrame):
            reply.resets[frame.error_code] += 1
