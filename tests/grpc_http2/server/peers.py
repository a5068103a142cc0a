"""A client of bare frames, which reads only when a test has it read."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from grpc_http2.wire import framed
from tests.builders import PATIENCE
from tests.grpc_http2.frames import PREFACE
from tests.grpc_http2.server.service import ONE

_FRAME_HEADER: Final = 9
_WINDOW: Final = 1 << 30

Pair = tuple[str, str]


class ConnectionEnded(Exception):
    """The server has closed the connection."""


@dataclass
class Response:
    """Response on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    received: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> str | None:
        return self.trailers.get("grpc-status", self.headers.get("grpc-status"))

    @property
    def body(self) -> bytes:
        return bytes(self.received)

    @property
    def message(self) -> bytes:
        """The only message of the response."""
        assert len(self.body) - 5 == int.from_bytes(self.body[1:5], "big")
        return self.body[5:]


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = hpack.Encoder()
        self.responses: defaultdict[int, Response] = defaultdict(Response)
        self.settings: dict[int, int] = {}
        self.goaways: list[GoAwayFrame] = []
        self.pings: list[bytes] = []
        """Payloads of the server's pings."""
        self.acknowledged: list[bytes] = []
        """Payloads of our pings that the server has answered."""
        self.windows: defaultdict[int, int] = defaultdict(int)
        """Bytes by which the server has enlarged each window, by stream."""
        self.answers_pings = True
        self._decoder = hpack.Decoder()
        self._block = b""
        self._next = 1
        self._gathered: bytearray | None = None

    @classmethod
    async def connect(
        cls,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        settings: dict[int, int] | None = None,
        greets: bool = True,
    ) -> Self:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
        )
        peer = cls(reader, writer)
        if greets:
            windows = WindowUpdateFrame(0, window_increment=_WINDOW)
            peer.write(PREFACE)
            peer.send(SettingsFrame(0, settings or {SettingsFrame.INITIAL_WINDOW_SIZE: _WINDOW}), windows)
        return peer

    def write(self, data: bytes) -> None:
        if self._gathered is None:
            self.writer.write(data)
        else:
            self._gathered += data

    @contextmanager
    def gathering(self) -> Iterator[bytearray]:
        """Collect the bytes that are written within the block instead of sending them."""
        gathered = self._gathered = bytearray()
        yield gathered
        self._gathered = None

    def send(self, *frames: Frame) -> None:
        self.write(b"".join(frame.serialize() for frame in frames))

    def headers(self, path: str = ONE, *more: Pair, last: bool = False, stream: int | None = None) -> int:
        """Send the headers of a gRPC call, and return its stream. ``more`` overrides the default headers."""
        stream = stream or self._next
        self._next = max(self._next, stream + 2)
        usual = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
        usual["content-type"] = "application/grpc"
        flags = ["END_HEADERS", *(["END_STREAM"] if last else [])]
        block = self.encoder.encode((usual | dict(more)).items())
        if len(block) <= 16_000:
            self.send(HeadersFrame(stream, block, flags=flags))
            return stream
        parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        self.send(HeadersFrame(stream, parts[0], flags=flags[1:]))
        for part in parts[1:]:
            self.send(ContinuationFrame(stream, part, flags=["END_HEADERS"] if part is parts[-1] else []))
        return stream

    def data(self, stream: int, body: bytes, *, last: bool = False) -> None:
        parts = [body[at : at + 16_000] for at in range(0, len(body), 16_000)] or [b""]
        for index, part in enumerate(parts):
            ends = last and index == len(parts) - 1
            self.send(DataFrame(stream, part, flags=["END_STREAM"] if ends else []))

    def call(self, message: bytes, path: str = ONE, *more: Pair) -> int:
        """Send a whole call of one message; return its stream."""
        stream = self.headers(path, *more)
        self.data(stream, framed(message), last=True)
        return stream

    async def frame(self) -> Frame:
        """Receive and process one frame of the server, and return it. Raises ConnectionEnded."""
        try:
            async with asyncio.timeout(PATIENCE):
                frame, length = Frame.parse_frame_header(memoryview(await self.reader.readexactly(_FRAME_HEADER)))
                frame.parse_body(memoryview(await self.reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError) as error:
            raise ConnectionEnded from error
        self._take(frame)
        return frame

    async def response(self, stream: int) -> Response:
        """Return the response once it is complete."""
        while not self.responses[stream].ended:
            await self.frame()
        return self.responses[stream]

    async def asked(self, message: bytes, path: str = ONE, *more: Pair) -> Response:
        """Make a call and return its response."""
        return await self.response(self.call(message, path, *more))

    async def ping(self, data: bytes = b"12345678") -> None:
        """Send a ping, and return once the server has answered it."""
        number = len(self.acknowledged)
        self.send(PingFrame(0, data))
        while len(self.acknowledged) == number:
            await self.frame()

    async def end(self) -> list[GoAwayFrame]:
        """Read until the server closes the connection; return its GOAWAY frames."""
        try:
            while True:
                await self.frame()
        except ConnectionEnded:
            return self.goaways

    def close(self) -> None:
        self.writer.transport.abort()

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, SettingsFrame):
            if "ACK" not in frame.flags:
                self.settings |= frame.settings
                self.send(SettingsFrame(0, flags=["ACK"]))
        elif isinstance(frame, PingFrame):
            self._take_ping(frame)
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append(frame)
        elif isinstance(frame, WindowUpdateFrame):
            self.windows[frame.stream_id] += frame.window_increment
        else:
            self._take_part(frame, self.responses[frame.stream_id])

    def _take_ping(self, frame: PingFrame) -> None:
        if "ACK" in frame.flags:
            self.acknowledged.append(frame.opaque_data)
            return
        self.pings.append(frame.opaque_data)
        if self.answers_pings:
            self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]))

    def _take_part(self, frame: Frame, response: Response) -> None:
        if isinstance(frame, HeadersFrame | ContinuationFrame):
            self._block += frame.data
            if "END_HEADERS" in frame.flags:
                pairs, self._block = self._decoder.decode(self._block), b""
                block = response.trailers if response.headers else response.headers
                block.update((str(name), str(value)) for name, value in pairs)
        elif isinstance(frame, DataFrame):
            response.received += frame.data
        elif isinstance(frame, RstStreamFrame):
            response.reset = frame.error_code
        response.ended = response.ended or "END_STREAM" in frame.flags or isinstance(frame, RstStreamFrame)


@asynccontextmanager
async def peer_of(
    port: int, *, tls: ssl.SSLContext | None = None, settings: dict[int, int] | None = None, greets: bool = True
) -> AsyncIterator[Peer]:
    """Yield a connection."""
    peer = await Peer.connect(port, tls=tls, settings=settings, greets=greets)
    try:
        yield peer
    finally:
        peer.close()


def codes_of(farewells: Sequence[GoAwayFrame]) -> list[int]:
    return [farewell.error_code for farewell in farewells]
