"""A bare HTTP/2 caller: headers, bytes and reading habits that client libraries do not allow."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.builders import PATIENCE
from tests.end_to_end.transports.callers import path_of
from tests.end_to_end.transports.orders import Echo, Order

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER = 9
_MUCH = 1 << 24
WINDOW = 65_535
"""Bytes of answers that arrive before the caller opens the window further."""


@dataclass
class Response:
    """Received part of the response to one call."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    ended: bool = False

    @property
    def status(self) -> str | None:
        """Status of the call, whether it is in the trailers or in the headers."""
        return self.trailers.get("grpc-status", self.headers.get("grpc-status"))

    def echo(self) -> Echo:
        """Return the only message."""
        message = self.body[5:]
        assert len(message) == int.from_bytes(self.body[1:5], "big")
        if not self.body[0]:
            return Echo.from_wire(message)
        assert self.headers["grpc-encoding"] == "gzip"
        return Echo.from_wire(zlib.decompress(message, wbits=31))


class WireCaller:
    """One connection. Nothing is read before a method requests it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._encoder = hpack.Encoder()
        self._decoder = hpack.Decoder()
        self._block = b""
        self._received = b""
        self._responses: dict[int, Response] = {}
        connection.sendall(_PREFACE + SettingsFrame(0).serialize())

    def start(self, method: str, body: bytes = b"", *headers: tuple[str, str], whole: bool = True) -> int:
        """Send a request, or its beginning; return its number. ``headers`` replace the usual ones."""
        usual = {
            ":method": "POST",
            ":scheme": "http",
            ":path": path_of(method),
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        number = 2 * len(self._responses) + 1
        self._responses[number] = Response()
        head = HeadersFrame(number, self._encoder.encode((usual | dict(headers)).items()), flags=["END_HEADERS"])
        self._send(head, DataFrame(number, body, flags=["END_STREAM"] if whole else []))
        return number

    def leave(self, number: int) -> None:
        """Cancel a call."""
        self._send(RstStreamFrame(number, error_code=8))

    def filled(self, number: int) -> Response:
        """Return the received part of a response once no more can arrive."""
        response = self._responses[number]
        while len(response.body) < WINDOW:
            self._receive()
        return response

    def response(self, number: int) -> Response:
        """Return the whole response."""
        # The connection gets room for what all of its calls may send.
        self._send(*(WindowUpdateFrame(of, window_increment=_MUCH) for of in (0, number)))
        response = self._responses[number]
        while not response.ended:
            self._receive()
        return response

    def call(self, method: str, body: bytes = b"", *headers: tuple[str, str]) -> Response:
        """Send a request and return its response."""
        return self.response(self.start(method, body, *headers))

    def _send(self, *frames: Frame) -> None:
        self._connection.sendall(b"".join(frame.serialize() for frame in frames))

    def _receive(self) -> None:
        frame, length = Frame.parse_frame_header(memoryview(self._exactly(_FRAME_HEADER)))
        frame.parse_body(memoryview(self._exactly(length)))
        response = self._responses.get(frame.stream_id, Response())
        if isinstance(frame, SettingsFrame | PingFrame):
            if "ACK" not in frame.flags:
                self._send(_acknowledged(frame))
        elif isinstance(frame, HeadersFrame | ContinuationFrame):
            self._block += frame.data
            if "END_HEADERS" in frame.flags:
                pairs, self._block = self._decoder.decode(self._block, raw=True), b""
                block = response.trailers if response.headers else response.headers
                block.update((name.decode(), value.decode()) for name, value in pairs)
        elif isinstance(frame, DataFrame):
            response.body += frame.data
        if "END_STREAM" in frame.flags or isinstance(frame, RstStreamFrame):
            response.ended = True

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            data = self._connection.recv(1 << 16)
            assert data, "the server has closed the connection"
            self._received += data
        part, self._received = self._received[:size], self._received[size:]
        return part


def _acknowledged(frame: SettingsFrame | PingFrame) -> Frame:
    if isinstance(frame, PingFrame):
        return PingFrame(0, frame.opaque_data, flags=["ACK"])
    return SettingsFrame(0, flags=["ACK"])


@contextmanager
def wire_to(address: str) -> Iterator[WireCaller]:
    """Yield a caller on a new connection."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        yield WireCaller(connection)


def framed(order: Order) -> bytes:
    """Return the message as it is framed in a request."""
    return prefixed(order.to_wire())


def prefixed(message: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message
