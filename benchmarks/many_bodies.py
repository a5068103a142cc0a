"""Load whose requests differ: gRPC over plain sockets, its HTTP/2 frames made beforehand.

h2load sends one body only. This sends any, from one thread, at a cost of some microseconds a request, so that the
servers and not the load are what is measured. It knows as much of HTTP/2 as a gRPC server answers with.
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

# A header or data frame comes here only where its flags say what a gRPC server has no need of.
_PARTS_OF_NO_ANSWER: Final = {GoAwayFrame.type, ContinuationFrame.type, DataFrame.type, HeadersFrame.type}

_Frame = struct.Struct(">HBBBI")  # the length's upper 16 bits, its lower 8, type, flags, stream


class BrokenConnection(Exception):
    """The server ended a connection, fell silent, or sent what a gRPC answer does not have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request."""

    body: int
    """Index of the request's body."""
    grpc_status: str
    """The code as a number in text; ``reset`` where the stream was."""
    message: bytes


@dataclass(slots=True)
class _Stream:
    body: int
    data: bytearray = field(default_factory=bytearray)


def drive(
    address: str, method: str, bodies: Sequence[bytes], *, requests: int, connections: int, streams: int
) -> tuple[float, list[Answer]]:
    """Send requests, ``bodies`` in turn, and return the seconds it took and every answer.

    Args:
        address: ``host:port``.
        method: ``/package.Service/Method``.
        bodies: messages, not framed.
        requests: how many in all.
        connections: how many connections.
        streams: how many requests at a time on each.

    Raises:
        BrokenConnection: a connection did not last.
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
        self._blocks: list[bytes] = []  # of headers, in the order that their compression needs
        self._ended: list[tuple[_Stream, int | None]] = []  # with the place of its trailers among the blocks
        self._next_stream = 1
        self._waiting = 0  # requests that may be sent, but for the window
        self._window = _WINDOW
        self._received = bytearray()
        settings = SettingsFrame(0, {SettingsFrame.ENABLE_PUSH: 0, SettingsFrame.INITIAL_WINDOW_SIZE: _LARGEST_WINDOW})
        more = WindowUpdateFrame(0, _LARGEST_WINDOW - _WINDOW)
        self.socket.sendall(_PREFACE + settings.serialize() + more.serialize())

    def ask(self, count: int) -> None:
        """Send up to ``count`` more requests, as many as the connection's window has room for."""
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
        """Take what has arrived, send a request for each that was answered, and return how many were."""
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
        """Yield what was answered. Called once, when time is no longer taken: headers are read only here."""
        statuses = _statuses(self._blocks)
        for stream, block in self._ended:
            status = "reset" if block is None else statuses[block]
            yield Answer(stream.body, status, bytes(stream.data[5:]))

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> int:
        """Take one frame; return 1 where it ended a stream."""
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
        """Take a frame about the connection."""
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
    """The headers of a request: spelt out in a connection's first, entries of its table in all that follow."""

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
    """Return ``grpc-status`` of each header block of a connection, or nothing where it has none."""
    decoder = Decoder()
    return [dict(decoder.decode(block, raw=True)).get(b"grpc-status", b"").decode() for block in blocks]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _Frame.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload
