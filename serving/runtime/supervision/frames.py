"""Messages between a supervisor and a worker over a pair of sockets: a length in four bytes, then a JSON object."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from typing import Any, Final, Literal, TypeAlias

Kind: TypeAlias = Literal["start", "stop", "metrics", "listening", "ready"]
"""Kind of a message.

To a worker: ``start`` with what to serve; ``stop``, the second time without waiting; ``metrics`` to request metrics.
From a worker: ``listening`` on an address, ``ready``, and the requested ``metrics``.
"""

Message: TypeAlias = dict[str, Any]

MOST_BYTES: Final = 64 << 20
"""Maximum size of a message, in bytes. The metrics of the largest service take a hundredth of this size."""

_LENGTH: Final = struct.Struct(">I")


class BadFrame(Exception):
    """A message from the peer violates the protocol."""


def encode(kind: Kind, **fields: Any) -> bytes:
    """Return a message, encoded for sending."""
    body = json.dumps({"kind": kind} | fields, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


async def read_message(reader: asyncio.StreamReader) -> Message | None:
    """Return the next message; ``None`` once the peer is gone.

    Raises:
        BadFrame: the message is invalid.
    """
    try:
        body = await reader.readexactly(_length(await reader.readexactly(_LENGTH.size)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return _decoded(body)


class BlockingFrames:
    """Blocking exchange of messages, for threads. Any thread may send; one thread receives.

    Args:
        end: one socket of the pair, in blocking mode.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._sending = threading.Lock()

    def receive(self) -> Message | None:
        """Return the next message; ``None`` once the peer is gone. Blocks.

        Raises:
            BadFrame: the message is invalid.
        """
        header = self._exactly(_LENGTH.size)
        body = None if header is None else self._exactly(_length(header))
        return None if body is None else _decoded(body)

    def send(self, kind: Kind, **fields: Any) -> None:
        """Send a message. Blocks while the peer does not read; does nothing if the peer is gone."""
        data = encode(kind, **fields)
        with self._sending:
            try:
                self._end.sendall(data)
            except OSError:
                # The receiving thread finds out that the peer is gone.
                return

    def _exactly(self, size: int) -> bytes | None:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self._end.recv(min(size - len(parts), 1 << 16))
            except OSError:
                return None
            if not part:
                return None
            parts += part
        return bytes(parts)


def _length(header: bytes) -> int:
    length: int = _LENGTH.unpack(header)[0]
    if length > MOST_BYTES:
        raise BadFrame(f"a message announces {length} bytes; at most {MOST_BYTES} are read")
    return length


def _decoded(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except ValueError as error:
        raise BadFrame("a message is not JSON") from error
    if not isinstance(message, dict) or "kind" not in message:
        raise BadFrame("a message has no kind")
    return message
