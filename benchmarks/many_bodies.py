"""Load whose requests differ: gRPC over plain sockets, with the contents of HTTP/2 frames built in advance.

h2load sends one body only. This generator sends arbitrary bodies from one thread, at a cost of a few microseconds per
request, so that the figures measure the servers and not the load. The generator understands only the HTTP/2 frames with
which a gRPC server answers.
"""

from __future__ import annotations

import selectors
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from benchmarks.calls import framed

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW: Final = 65_535
_LARGEST_WINDOW: Final = (1 << 31) - 1
_END_STREAM: Final = 0x1
_ACKNOWLEDGED: Final = 0x1
_END_HEADERS: Final = 0x4
_PADDED_OR_PRIORITY: Final = 0x8 | 0x20
_FRAME_HEADER: Final = 9
_READ_BYTES: Final = 1 << 18
_SILENCE_SECONDS: Final = 60.0

# A header or data frame is checked against this set only if it has flags that a gRPC server does not need.
_PARTS_OF_NO_ANSWER: Final = {GoAwayFrame.type, ContinuationFrame.type, DataFrame.type, HeadersFrame.type}

_Frame = struct.Struct(">HBBBI")  # upper 16 bits of the length, lower 8 bits, type, flags, stream


class BrokenConnection(Exception):
    """The server closed a connection, stopped answering, or sent a frame that is not part of a gRPC answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to one request."""

    body: int
    """Index of the request's body."""
    grpc_status: str
    """Status code as decimal text; ``reset`` if the stream was reset."""
    message: bytes


@dataclass(slots=True)
class _Stream:
    body: int
    data: bytearray = field(default_factory=bytearray)


def drive(
    address: str, method: str, bodies: Sequence[bytes], *, requests: int, connections: int, streams: int
) -> tuple[float, list[Answer]]:
    """Send requests with ``bodies`` in turn, and return the elapsed seconds and every answer.

    Args:
        address: ``host:port``.
        method: ``/package.Service/Method``.
        bodies: messages without gRPC framing.
        requests: total number of requests.
        connections: number of connections.
        streams: number of requests in flight on each connection.

    Raises:
        BrokenConnection: a connection failed.
    """
    bodies = [framed(body) for body in bodies]
    turn = iter(range(requests))
    with selectors.DefaultSelector() as selector:
        opened = [_Connection(address, method, bodies, turn) for _ in range(connections)]
        try:
            for connection in opened:
                selector.register(connection.socket, selectors.EVENT_READ, connection)
            started = time.perf_counter()
            for connection in opened:
                connection.ask(streams)
            answered = 0
            while answered < requests:
                ready = selector.select(_SILENCE_SECONDS)
                if not ready:
                    raise BrokenConnection(f"no answer within {_SILENCE_SECONDS:g} seconds")
                answered += sum(key.data.read() for key, _ in ready)
            seconds = time.perf_counter() - started
            return seconds, [answer for connection in opened for answer in connection.answers()]
        finally:
            for connection in opened:
                connection.socket.close()


class _Connection:
    def __init__(self, address: str, method: str, bodies: Sequence[bytes], turn: Iterator[int]) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bodies = bodies
        self._largest = max(map(len, bodies))
        self._turn = turn
        self._headers = _HeaderBlocks(address, method)
        self._streams: dict[int, _Stream] = {}
        self._blocks: list[bytes] = []  # header blocks in order of arrival, as HPACK requires
        self._ended: list[tuple[_Stream, int | None]] = []  # each with the index of its trailers in the blocks
        self._next_stream = 1
        self._waiting = 0  # requests to send once the window has room
        self._window = _WINDOW
        self._received = bytearray()
        settings = SettingsFrame(0, {SettingsFrame.ENABLE_PUSH: 0, SettingsFrame.INITIAL_WINDOW_SIZE: _LARGEST_WINDOW})
        more = WindowUpdateFrame(0, _LARGEST_WINDOW - _WINDOW)
        self.socket.sendall(_PREFACE + settings.serialize() + more.serialize())

    def ask(self, count: int) -> None:
        """Send up to ``count`` more requests, limited by the connection's window."""
        self._waiting += count
        output = bytearray()
        while self._waiting and self._window >= self._largest:
            number = next(self._turn, None)
            if number is None:
                self._waiting = 0
                break
            index = number % len(self._bodies)
            body = self._bodies[index]
            stream, self._next_stream = self._next_stream, self._next_stream + 2
            self._streams[stream] = _Stream(index)
            block = self._headers.next()
            output += _frame(HeadersFrame.type, _END_HEADERS, stream, block)
            output += _frame(DataFrame.type, _END_STREAM, stream, body)
            self._window -= len(body)
            self._waiting -= 1
        if output:
            self.socket.sendall(output)

    def read(self) -> int:
        """Process received data, send a new request for each answered one, and return the number of answers."""
        arrived = self.socket.recv(_READ_BYTES)
        if not arrived:
            raise BrokenConnection("the server closed a connection")
        self._received += arrived
        position, answered = 0, 0
        while len(self._received) - position >= _FRAME_HEADER:
            upper, lower, kind, flags, stream = _Frame.unpack_from(self._received, position)
            end = position + _FRAME_HEADER + (upper << 8 | lower)
            if end > len(self._received):
                break
            answered += self._take(kind, flags, stream, bytes(self._received[position + _FRAME_HEADER : end]))
            position = end
        del self._received[:position]
        self.ask(answered)
        return answered

    def answers(self) -> Iterator[Answer]:
        """Yield the answers. Call once, after the timing has ended: headers are decoded only here."""
        statuses = _statuses(self._blocks)
        for stream, block in self._ended:
            status = "reset" if block is None else statuses[block]
            yield Answer(stream.body, status, bytes(stream.data[5:]))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        """Process one frame; return 1 if it ended a stream, else 0."""
        if kind == DataFrame.type and not flags & _PADDED_OR_PRIORITY:
            self._streams[stream].data += payload
            return 0
        if kind == HeadersFrame.type and flags & _END_HEADERS and not flags & _PADDED_OR_PRIORITY:
            self._blocks.append(payload)
            return self._end(stream, len(self._blocks) - 1) if flags & _END_STREAM else 0
        if kind == RstStreamFrame.type:
            return self._end(stream, None) if stream in self._streams else 0
        if kind in _PARTS_OF_NO_ANSWER:
            raise BrokenConnection(f"a frame of type {kind} with flags {flags:#x} is not part of a plain gRPC answer")
        self._control(kind, flags, stream, payload)
        return 0

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Process a frame that concerns the connection."""
        if kind == WindowUpdateFrame.type and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == PingFrame.type and not flags & _ACKNOWLEDGED:
            self.socket.sendall(_frame(PingFrame.type, _ACKNOWLEDGED, 0, payload))
        elif kind == SettingsFrame.type and not flags & _ACKNOWLEDGED:
            self.socket.sendall(_frame(SettingsFrame.type, _ACKNOWLEDGED, 0, b""))

    def _end(self, stream: int, block: int | None) -> int:
        self._ended.append((self._streams.pop(stream), block))
        return 1


class _HeaderBlocks:
    """Headers of a request: in full in a connection's first request, as table entries in all later ones."""

    def __init__(self, address: str, method: str) -> None:
        headers = (
            *((":method", "POST"), (":scheme", "http"), (":path", method), (":authority", address)),
            *(("content-type", "application/grpc"), ("te", "trailers")),
        )
        encoder = Encoder()
        self._first: bytes | None = encoder.encode(headers)
        self._rest = encoder.encode(headers)

    def next(self) -> bytes:
        first, self._first = self._first, None
        return first or self._rest


def _statuses(blocks: Sequence[bytes]) -> list[str]:
    """Return ``grpc-status`` of each header block of a connection, or an empty string if it is missing."""
    decoder = Decoder()
    return [dict(decoder.decode(block, raw=True)).get(b"grpc-status", b"").decode() for block in blocks]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _Frame.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload
