"""Fuzzer of both roles of the library: ``python -m tests.grpc_http2.fuzz --minutes 120``.

A session is one connection over a fake transport; a seed determines the frames that its peer writes. Whatever the peer
writes, no exception may be raised, every call ends once the connection does, and no state of either remains.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from random import Random
from typing import Any, Final

import grpc
import psutil
import structlog

from grpc_http2.client.calls.call import Call
from grpc_http2.client.calls.stream import Failure
from grpc_http2.client.channel import Channel
from grpc_http2.client.connection import Connection
from grpc_http2.client.settings import ChannelSettings, Pings
from grpc_http2.server.calls.call import ServerCall
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.opening import Opening
from grpc_http2.server.server import Server
from grpc_http2.wire import framed
from tests.fakes.transport import FakeTransport
from tests.grpc_http2.frames import PREFACE, FrameWriter, damaged, in_chunks

SERVICE: Final = "fuzz.Service"
ONE, MANY, SUM, BOTH, PLAIN, LATER = (f"/{SERVICE}/{name}" for name in ("One", "Many", "Sum", "Both", "Plain", "Later"))
PATHS: Final = (ONE, MANY, SUM, BOTH, PLAIN, LATER, f"/{SERVICE}/Other", "/", "/web")
LIMITS: Final = ServerLimits(
    max_message_bytes=50_000,
    max_metadata_bytes=2_000,
    max_streams=20,
    max_buffered_bytes=100_000,
    stream_window_bytes=65_535,
    connection_window_bytes=200_000,
    max_unsent_bytes=2_000,
    max_unsent_connection_bytes=10_000,
    max_read_bytes=4_096,
    idle_bytes=20_000,
    idle_bytes_per_second=1_000,
)
_TURNS: Final = 200
_TELL_SECONDS: Final = 30


class Fault(Exception):
    """Violation of a rule that every session must keep."""


# Methods of the server.


async def _one(request: bytes, context: Any) -> bytes:
    if request[:1] == b"w":
        await asyncio.sleep(0)
    if request[:1] == b"a":
        await context.abort(grpc.StatusCode.ABORTED, "é", (("key", "value"),))
    return request * 3


async def _many(request: bytes, context: Any) -> AsyncIterator[bytes]:
    await context.send_initial_metadata((("a", "b"),))
    for _ in range(len(request) % 50):
        yield request


async def _sum(requests: AsyncIterator[bytes], context: Any) -> bytes:
    del context
    return b"%d" % sum([len(request) async for request in requests])


async def _both(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    del context
    async for request in requests:
        yield request
        if request[:1] == b"e":
            return


def _plain(call: ServerCall, message: bytes) -> None:
    call.sends_gzip = call.accepts_gzip
    call.answer(message, ((b"id", b"1"),))


def _later(call: ServerCall, message: bytes) -> None:
    call.connection.turn.at_end(lambda: call.answer(message))


async def _web(scope: Any, receive: Any, send: Any) -> None:
    del scope
    body = b""
    more = True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event["body"]
        more = event["more_body"] and len(body) < 10_000
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close"), (b"a", b"b")]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": body})


def fuzzed_server() -> Server:
    """Return a server with methods of every kind. REQUIRES: an event loop runs."""
    server = Server(LIMITS)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "One": grpc.unary_unary_rpc_method_handler(_one),
        "Many": grpc.unary_stream_rpc_method_handler(_many),
        "Sum": grpc.stream_unary_rpc_method_handler(_sum),
        "Both": grpc.stream_stream_rpc_method_handler(_both),
    }
    server.add_registered_method_handlers(SERVICE, handlers)
    server.add_call_handler(PLAIN, _plain)
    server.add_call_handler(LATER, _later)
    server.serve_http(_web)
    return server


# Bytes that peers write.

_SIZES: Final = [0, 1, 10] * 10 + [1_000, 20_000, 60_000]


def _body(random: Random) -> bytes:
    body = b"".join(
        framed(
            random.choice([b"w", b"a", b"e", b"x"]) * random.choice(_SIZES),
            compressed=random.random() < 0.1,
        )
        for _ in range(random.choice([0, 1, 1, 1, 1, 3]))
    )
    if random.random() < 0.1:
        body = body[: random.randint(0, len(body))]
    return body


def _request(writer: FrameWriter, stream: int) -> list[bytes]:
    random = writer.random
    path = random.choice(PATHS)
    headers = [(":method", random.choice(["POST"] * 9 + ["GET"])), (":scheme", "http"), (":path", path)]
    headers += [(":authority", "localhost"), ("te", "trailers")]
    kind = "text/plain" if path == "/web" else random.choice(["application/grpc"] * 9 + ["application/grpc+proto", "x"])
    headers.append(("content-type", kind))
    more = [
        ("grpc-timeout", random.choice(["1m", "1S", "1H", "x", "99999999n"])),
        ("grpc-encoding", random.choice(["gzip", "identity", "br"])),
        ("grpc-accept-encoding", "gzip"),
        ("key-bin", random.choice(["AAE=", "AAE", "!"])),
        ("large", "x" * random.choice([100, 1_990, 3_000, 9_000])),
        ("content-length", "5"),
        ("connection", "close"),
    ]
    headers += [pair for pair in more if random.random() < 0.07]
    body, trailers = _body(random), random.random() < 0.1
    ends = random.random() < 0.9
    if random.random() < 0.05:
        return writer.headers(stream, headers, last=True)
    frames = writer.headers(stream, headers, last=False) + writer.body(stream, body, last=ends and not trailers)
    return frames + (writer.headers(stream, [("trailer", "x")], last=True) if trailers else [])


def client_bytes(random: Random) -> bytes:
    """Return the bytes that a client writes."""
    writer = FrameWriter(random)
    streams = list(range(1, 2 * random.choice([1, 1, 3, 10, 40]), 2))
    frames: list[bytes] = []
    for stream in streams:
        frames += _request(writer, stream)
        while random.random() < 0.3:
            frames.append(writer.odd(streams))
    if random.random() < 0.3:
        # Streams that are under way together. Blocks of headers must stay in order: the codec has a memory.
        random.shuffle(frames)
    if random.random() < 0.6:
        frames = damaged(frames, random)
    start = [PREFACE, writer.odd([0])] if random.random() < 0.02 else [PREFACE, b"\0\0\0\4\0\0\0\0\0"]
    return b"".join(start + frames)


def server_bytes(random: Random, streams: Sequence[int]) -> bytes:
    """Return the bytes that a server writes."""
    writer = FrameWriter(random)
    frames: list[bytes] = []
    for stream in streams:
        head = [(":status", random.choice(["200"] * 9 + ["404", "503", "100"]))]
        head.append(("content-type", random.choice(["application/grpc"] * 9 + ["text/html"])))
        head += [
            pair for pair in (("grpc-encoding", "gzip"), ("k-bin", "!"), ("x", "y" * 5000)) if random.random() < 0.1
        ]
        status = [("grpc-status", random.choice(["0"] * 6 + ["14", "8", "99", "x"])), ("grpc-message", "%41%")]
        status += [("grpc-retry-pushback-ms", random.choice(["1", "-1", "x"]))] if random.random() < 0.1 else []
        shape = random.random()
        if shape < 0.2:
            frames += writer.headers(stream, head + status, last=True)
        else:
            frames += writer.headers(stream, head, last=False)
            frames += writer.body(stream, _body(random), last=shape > 0.95)
            if shape < 0.9:
                frames += writer.headers(stream, status, last=True)
        while random.random() < 0.3:
            frames.append(writer.odd(streams))
    if random.random() < 0.3:
        random.shuffle(frames)
    if random.random() < 0.6:
        frames = damaged(frames, random)
    return b"".join([b"\0\0\0\4\0\0\0\0\0", *frames])


# Sessions.


async def _play(transport: FakeTransport, data: bytes, random: Random) -> None:
    """Have the peer write ``data``, and read at random."""
    eager = random.random() < 0.7
    for chunk in in_chunks(data, random):
        transport.feed(chunk)
        if random.random() < 0.5:
            await asyncio.sleep(0)
        if eager or random.random() < 0.1:
            transport.read(None if eager else random.randint(0, 5000))
        if transport.is_lost:
            return
    for _ in range(random.choice([0, 3, 30])):
        await asyncio.sleep(0)
        transport.read()


async def _until(true: Callable[[], bool], what: str) -> None:
    for _ in range(_TURNS):
        if true():
            return
        await asyncio.sleep(0)
    raise Fault(what)


async def server_session(server: Server, seed: int) -> None:
    """Run one connection of a client. Raises Fault."""
    random = Random(seed)
    transport = FakeTransport(None, random.choice([None, 1_000, 30_000]))
    with socket.socket() as unused:
        opening = Opening(server, unused, None)
    server.opening.add(opening)
    transport.protocol = opening
    transport.connect()
    await _play(transport, client_bytes(random), random)
    transport.lose()
    await _until(lambda: not server._tasks, "tasks are left")
    if server.connections:
        raise Fault("a connection is left")
    if server.held_bytes:
        raise Fault(f"{server.held_bytes} bytes are held")
    protocol: Any = transport.protocol
    if protocol is not opening and getattr(protocol, "streams", None):
        raise Fault("streams are left")


class FakeBalancer:
    """Balancer that assigns every call to one connection."""

    def __init__(self, settings: ChannelSettings) -> None:
        self.connection = Connection(self, settings)
        self.waits: list[Call] = []

    def assign(self, call: Call) -> None:
        if not self.connection.has_room:
            if self.connection.is_leaving:
                call.attempt_failed(Failure(grpc.StatusCode.UNAVAILABLE, "no server"))
            else:
                self.waits.append(call)
            return
        pairs = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", call.path.encode()), (b":authority", b"a"))
        call.attach(self.connection, pairs)

    def connection_leaves(self, connection: Connection) -> None:
        del connection

    def connection_gone(self, connection: Connection, *, hangs: bool) -> None:
        del connection, hangs
        self.room_made()

    def room_made(self) -> None:
        waits, self.waits = self.waits, []
        for call in waits:
            self.assign(call)

    def set_addresses(self, addresses: Sequence[str]) -> None:
        """Ignore the addresses: there is one connection."""

    async def close(self) -> None:
        self.connection.close()


async def _make_call(channel: Channel, random: Random) -> None:
    kind = random.randrange(4)
    timeout = random.choice([None, None, 0.001, 10.0])
    message = b"m" * random.choice([0, 10, 70_000])
    try:
        if kind == 0:
            await channel.unary_unary(ONE)(message, timeout=timeout)
        elif kind == 1:
            async for _ in channel.unary_stream(MANY)(message, timeout=timeout):
                if random.random() < 0.1:
                    break
        elif kind == 2:
            await channel.stream_unary(SUM)(iter([message] * 3), timeout=timeout)
        else:
            call = channel.stream_stream(BOTH)(timeout=timeout)
            await call.write(message)
            await call.read()
            if random.random() < 0.3:
                call.cancel()
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return


async def client_session(seed: int) -> None:
    """Run one connection to a server. Raises Fault."""
    random = Random(seed)
    settings = ChannelSettings(
        max_message_bytes=50_000, max_metadata_bytes=2_000, most_streams=10, pings=random.choice([None, Pings()])
    )
    balancer: Any = FakeBalancer(settings)
    channel = Channel(["fuzz:1"], settings, make_balancer=lambda *_: balancer)
    transport = FakeTransport(balancer.connection, random.choice([None, 1_000, 30_000]))
    transport.connect()
    number = random.choice([1, 1, 3, 15])
    calls = [asyncio.ensure_future(_make_call(channel, Random(random.random()))) for _ in range(number)]
    await asyncio.sleep(0)
    await _play(transport, server_bytes(random, range(1, 2 * number, 2)), random)
    transport.lose()
    await _until(lambda: all(call.done() for call in calls), "calls do not end")
    cancelled = [call for call in calls if call.cancelled()]
    for call in calls:
        if call not in cancelled:
            call.result()
    await channel.close()
    if channel.calls:
        raise Fault("calls are left")


class Runner:
    """Runner of sessions of both roles on one event loop, which detects the faults that they leave."""

    def __init__(self) -> None:
        self.faults: list[BaseException | str] = []
        self.server = fuzzed_server()
        asyncio.get_running_loop().set_exception_handler(self._take_fault)
        structlog.configure(processors=[self._take_line], wrapper_class=structlog.make_filtering_bound_logger(0))

    def _take_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        self.faults.append(context.get("exception") or str(context["message"]))

    def _take_line(self, logger: object, name: str, event: structlog.typing.EventDict) -> Any:
        del logger
        if name in ("error", "exception", "critical"):
            self.faults.append(sys.exc_info()[1] or str(event))
        raise structlog.DropEvent

    async def session(self, role: str, seed: int) -> None:
        """Run one session. Raises Fault, or any other exception of the session."""
        work: Coroutine[Any, Any, None] = (
            server_session(self.server, seed) if role == "server" else client_session(seed)
        )
        await work
        if self.faults:
            fault = self.faults.pop(0)
            self.faults.clear()
            raise fault if isinstance(fault, BaseException) else Fault(fault)


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def run(minutes: float, first_seed: int) -> int:
    """Fuzz for ``minutes``; return the number of failed sessions."""
    runner = Runner()
    logging.disable(logging.CRITICAL)
    process = psutil.Process()
    began, seed, bad, told = time.monotonic(), first_seed, 0, 0.0
    baseline = 0
    while time.monotonic() - began < 60 * minutes:
        for role in ("server", "client"):
            try:
                await runner.session(role, seed)
            except Exception:  # noqa: BLE001 - reported, and the run continues
                bad += 1
                _tell(f"{role} {seed}:\n{traceback.format_exc()}")
                runner = Runner()
        seed += 1
        if time.monotonic() - told > _TELL_SECONDS or time.monotonic() - began >= 60 * minutes:
            told = time.monotonic()
            gc.collect()
            resident = process.memory_info().rss >> 10
            baseline = baseline or resident
            sessions = 2 * (seed - first_seed)
            _tell(f"{sessions} sessions, {bad} bad, {resident} KiB resident, {resident - baseline:+} KiB")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the server and the client of grpc_http2.")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: %(default)s)")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(run(arguments.minutes, arguments.seed)) != 0)


if __name__ == "__main__":
    main()
