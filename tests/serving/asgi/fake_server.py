"""A fake ASGI server with one gRPC request, for tests of the application alone."""

from __future__ import annotations

import asyncio
import gzip
import struct
from collections import deque
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import unquote

from grpc import StatusCode

from grpc_http2.wire import Header, framed
from serving.transport.asgi.application import Application
from tests.builders import PATIENCE, a_turn

PATH: Final = "/test.Service/Method"
GRPC: Final = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
_CODES: Final = {code.value[0]: code for code in StatusCode}


class ClientDisconnected(OSError):
    """What servers raise from ``send`` when the client is gone."""


@dataclass(frozen=True)
class Answer:
    """What was sent to the caller."""

    http_status: int
    headers: list[Header]
    body: bytes
    trailers: list[Header]

    @classmethod
    def of(cls, events: Sequence[Mapping[str, Any]]) -> Self:
        """Read events, whose order is checked."""
        start, *pieces = events
        assert start["type"] == "http.response.start"
        # Where nothing was sent before the status, gRPC's headers and trailers are one block.
        alone = [header for header in start["headers"] if header[0] not in (b"content-type", b"content-length")]
        trailers = pieces.pop()["headers"] if start.get("trailers") else alone
        assert [piece["type"] for piece in pieces] == ["http.response.body"] * len(pieces)
        assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
        return cls(start["status"], start["headers"], b"".join(piece["body"] for piece in pieces), trailers)

    @property
    def code(self) -> StatusCode:
        return _CODES[int(dict(self.trailers)[b"grpc-status"])]

    @property
    def message(self) -> str:
        return unquote(dict(self.trailers).get(b"grpc-message", b"").decode("ascii"))

    @property
    def frames(self) -> list[tuple[bool, bytes]]:
        """Each message as it is on the wire, and whether it is compressed."""
        found, rest = [], self.body
        while rest:
            flag, size = struct.unpack_from(">BI", rest)
            found.append((bool(flag), rest[5 : 5 + size]))
            rest = rest[5 + size :]
        return found

    @property
    def messages(self) -> list[bytes]:
        return [gzip.decompress(message) if compressed else message for compressed, message in self.frames]


class FakeServer:
    """Serves one request to an application, and is as hard to please as pyvoy.

    Its futures must not be cancelled, for it sets them whatever happens.

    Args:
        application: what is asked.
        headers: of the request.
        prompt: ``receive`` answers at once where it can, and tells again and again that a complete request has no more
            to it, as pyvoy does. Otherwise it goes by ASGI's rules and waits until the caller leaves.
    """

    def __init__(
        self,
        application: Application,
        *,
        path: str = PATH,
        headers: Sequence[Header] = (),
        method: str = "POST",
        prompt: bool = True,
    ) -> None:
        self._prompt = prompt
        self._events: deque[dict[str, Any]] = deque()
        self._complete = False
        self._left = False
        self._receiving: asyncio.Future[dict[str, Any]] | None = None
        self._futures: list[asyncio.Future[Any]] = []
        self._stalled: list[asyncio.Future[None]] | None = None
        self._questions = asyncio.Semaphore(0)
        self.sent: list[dict[str, Any]] = []
        self.received = 0
        """How often it was asked for an event."""
        scope = {"type": "http", "method": method, "path": path, "headers": [*GRPC, *headers], "client": ("::1", 5)}
        self._task = asyncio.ensure_future(application(scope, self._receive, self._send))

    # What a test does.

    def send_body(self, body: bytes, *, more: bool = True) -> None:
        """Let a piece of the request arrive."""
        self._complete = not more
        self._events.append({"type": "http.request", "body": body, "more_body": more})
        self._deliver()

    def send_messages(self, *messages: bytes, more: bool = False) -> None:
        """Let whole messages arrive, in one piece."""
        self.send_body(b"".join(map(framed, messages)), more=more)

    def leave(self) -> None:
        """Let the caller leave."""
        self._left = True
        self._deliver()
        for future in self._stalled or ():
            future.set_exception(ClientDisconnected())
        self._stalled = None

    def stall(self) -> None:
        """Let the caller read nothing for now."""
        self._stalled = []

    def flow(self) -> None:
        """Let the caller read again."""
        for future in self._stalled or ():
            future.set_result(None)
        self._stalled = None

    async def ended(self) -> None:
        """Wait until the application has ended, which must leave all futures alone and look at every error."""
        await asyncio.wait_for(self._task, PATIENCE)
        await a_turn(2)
        assert not any(future.cancelled() for future in self._futures)
        assert not any(getattr(future, "_log_traceback", False) for future in self._futures)

    async def answer(self) -> Answer:
        """Return what the application has answered, once it has ended."""
        await self.ended()
        return Answer.of(self.sent)

    async def asked(self, times: int) -> None:
        """Wait until it has been asked for an event so many times more."""
        for _ in range(times):
            await asyncio.wait_for(self._questions.acquire(), PATIENCE)

    def cancel(self) -> None:
        """Cancel the application, as servers do that are stopped."""
        self._task.cancel()

    # What the application calls.

    def _receive(self) -> Awaitable[dict[str, Any]]:
        assert self._receiving is None or self._receiving.done(), "only one reader at a time"
        self.received += 1
        self._questions.release()
        future = self._receiving = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        self._deliver()
        return future

    def _send(self, event: dict[str, Any]) -> Awaitable[None]:
        future = asyncio.get_running_loop().create_future()
        self._futures.append(future)
        if self._left:
            future.set_exception(ClientDisconnected())
            return future
        self.sent.append(event)
        if self._stalled is not None and event.get("more_body"):
            self._stalled.append(future)
        else:
            future.set_result(None)
        return future

    def _deliver(self) -> None:
        if self._receiving is None or self._receiving.done():
            return
        event = self._next_event()
        if event is None:
            return
        if self._prompt:
            self._receiving.set_result(event)
        else:
            receiving, self._receiving = self._receiving, None
            asyncio.get_running_loop().call_soon(receiving.set_result, event)

    def _next_event(self) -> dict[str, Any] | None:
        if self._left:
            return {"type": "http.disconnect"}
        if self._events:
            return self._events.popleft()
        return {"type": "http.request", "body": b"", "more_body": False} if self._complete and self._prompt else None


async def answer_to(
    application: Application, *messages: bytes, headers: Sequence[Header] = (), **options: Any
) -> Answer:
    """Send a request of whole messages; return the answer."""
    server = FakeServer(application, headers=headers, **options)
    server.send_messages(*messages)
    return await server.answer()
