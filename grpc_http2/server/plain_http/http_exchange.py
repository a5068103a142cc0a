"""Plain HTTP over HTTP/2: a request that is not gRPC, answered by an ASGI application."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from grpc_http2.log import log
from grpc_http2.wire import Header

if TYPE_CHECKING:
    from grpc_http2.server.connection import ServerConnection


Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]
Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]
Application: TypeAlias = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]
"""Application as defined by ASGI 3."""

# Connection-specific headers have no meaning in HTTP/2 (RFC 9113, section 8.2.2).
_OF_CONNECTIONS: Final = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection"}
)


class HttpExchange:
    """One request and its response. A :class:`~grpc_http2.server.streams.ServerStream`.

    Args:
        connection: connection on which the request arrived.
        stream_id: stream of that connection.
        headers: headers of the request, including pseudo-headers.
        application: application that answers the request.
        tasks: tasks of all active requests; the owner of the set ends them.
    """

    def __init__(
        self,
        connection: ServerConnection,
        stream_id: int,
        headers: Sequence[Header],
        application: Application,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self._headers = headers
        self._application = application
        self._tasks = tasks
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._left = False
        self._reported_end = False
        self._is_head = (b":method", b"HEAD") in headers
        self._answered = False
        self.request_ended = False

    def begin(self) -> None:
        """Have the application serve the request, in a task."""
        task = asyncio.get_running_loop().create_task(self._serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def receive(self, data: bytes, *, last: bool) -> None:
        """Handle a part of the body."""
        if data:
            self._chunks.append(data)
        self.request_ended = self.request_ended or last
        self._news.set()

    def leave(self) -> None:
        """Notify the application that the client has disconnected."""
        self._left = True
        while self._chunks:
            self._connection.make_room(self._stream_id, len(self._chunks.popleft()))
        self._news.set()

    def look(self, now: float) -> None:
        """Do nothing: the application limits the time for a body."""

    async def _serve(self) -> None:
        try:
            await self._application(self._scope(), self._next_event, self._send)
        except Exception:
            log.exception("the application failed")
            self._fail()
        else:
            if not self._answered:
                self._fail()

    def _scope(self) -> dict[str, Any]:
        pseudo = {name: value for name, value in self._headers if name[:1] == b":"}
        target, _, query = pseudo.get(b":path", b"/").partition(b"?")
        headers = [pair for pair in self._headers if pair[0][:1] != b":"]
        if b":authority" in pseudo:
            headers.insert(0, (b"host", pseudo[b":authority"]))
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": pseudo.get(b":method", b"GET").decode("latin-1"),
            "scheme": pseudo.get(b":scheme", b"http").decode("latin-1"),
            "path": _unquoted(target),
            "raw_path": target,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self._connection.peer.address(),
            "server": None,
            "state": {},
            "extensions": {"tls": {"client_certificate": self._connection.peer.certificate()}},
        }

    async def _next_event(self) -> dict[str, Any]:
        while not self._chunks:
            if self._left or self._answered:
                return {"type": "http.disconnect"}
            if self.request_ended and not self._reported_end:
                self._reported_end = True
                return {"type": "http.request", "body": b"", "more_body": False}
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks.popleft()
        self._connection.make_room(self._stream_id, len(chunk))
        more = bool(self._chunks) or not self.request_ended
        self._reported_end = not more
        return {"type": "http.request", "body": chunk, "more_body": more}

    async def _send(self, event: dict[str, Any]) -> None:
        if self._left:
            return
        if event["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in event["headers"]]
            kept = [pair for pair in headers if pair[0] not in _OF_CONNECTIONS]
            self._connection.send_headers(self._stream_id, [(b":status", b"%d" % event["status"]), *kept])
        elif event["type"] == "http.response.body":
            last = not event.get("more_body", False)
            body = b"" if self._is_head else event.get("body", b"")
            self._connection.send_data(self._stream_id, body, last=last)
            if last:
                self._answered = True
                self._connection.answered(self._stream_id, request_ended=self.request_ended)
            else:
                await self._connection.drained(self._stream_id)

    def _fail(self) -> None:
        if not (self._left or self._answered):
            self._answered = True
            self._connection.reset(self._stream_id)


def _unquoted(path: bytes) -> str:
    return unquote_to_bytes(path).decode("utf-8", "replace")


async def refuse(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer that this port accepts only gRPC. Serves as the application if none is set."""
    del scope, receive
    body = b"this port speaks gRPC\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
