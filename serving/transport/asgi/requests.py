"""The messages of a call's request, from ASGI events."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from grpc import StatusCode

from grpc_http2.wire import PREFIX_BYTES, MessageReader, WireError
from serving.transport.asgi.watch import CallerLeft, CallWatch, Ended, Event, Receive, left_alone, next_event

_MAX_EVENTS_AHEAD: Final = 16


def whole_message(event: Event, limit: int) -> bytes | None:
    """Return the message where the event holds the whole request, plain; ``None`` where a closer look is needed."""
    body: bytes = event.get("body", b"")
    if event.get("more_body") or body[:1] != b"\0":
        return None
    size = len(body) - PREFIX_BYTES
    return body[PREFIX_BYTES:] if int.from_bytes(body[1:PREFIX_BYTES], "big") == size <= limit else None


def deserialized(deserialize: Callable[[bytes], Any] | None, message: bytes) -> Any:
    """Return the message as its handler takes it. Raises WireError."""
    if deserialize is None:
        return message
    try:
        return deserialize(message)
    except Exception as error:
        raise WireError(StatusCode.INTERNAL, "the request is not a message of this call") from error


async def unary_request(first: asyncio.Future[Event], receive: Receive, reader: MessageReader) -> bytes:
    """Return the one message of a request whose first event is ``first``.

    Raises:
        CallerLeft: before it was complete.
        WireError: it is none, or there are more.
    """
    messages: list[bytes] = []
    pending: asyncio.Future[Event] | None = first
    while True:
        event = await next_event(receive) if pending is None else await left_alone(pending)
        pending = None
        if event["type"] == "http.disconnect":
            raise CallerLeft
        messages += reader.feed(event.get("body", b""))
        if not event.get("more_body"):
            break
    reader.end()
    if len(messages) != 1:
        raise WireError(StatusCode.UNIMPLEMENTED, "the call takes one message, no more and no less")
    return messages[0]


class StreamedRequest:
    """The messages of a stream, read ahead a little, so that a caller who leaves is noticed."""

    def __init__(
        self, receive: Receive, reader: MessageReader, deserialize: Callable[[bytes], Any] | None, watch: CallWatch
    ) -> None:
        self._receive = receive
        self._reader = reader
        self._deserialize = deserialize
        self._watch = watch
        self._events: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS_AHEAD)
        self._messages: deque[bytes] = deque()
        self._complete = False
        self._pump = asyncio.get_running_loop().create_task(self._read_ahead())

    async def read(self) -> Any:
        """Return the next message, or ``grpc.aio.EOF``. Raises WireError."""
        while not self._messages:
            if self._complete:
                self._reader.end()
                return grpc.aio.EOF
            event = await self._events.get()
            self._messages.extend(self._reader.feed(event.get("body", b"")))
            self._complete = not event.get("more_body")
        message = self._messages.popleft()
        return deserialized(self._deserialize, message)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    def close(self) -> None:
        """Stop reading ahead."""
        self._pump.cancel()

    async def _read_ahead(self) -> None:
        while (event := await next_event(self._receive))["type"] != "http.disconnect":
            if not event.get("more_body"):
                self._watch.listen(self._receive)
                await self._events.put(event)
                return
            await self._events.put(event)
        self._watch.end_call(Ended.CALLER_LEFT)
