"""What the supervisor and the process it supervises tell each other: one JSON object a line, over a pair of sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any, Final, Literal, Self, TypeAlias

Kind: TypeAlias = Literal["listening", "stop", "drain", "drained", "ended"]
"""To Envoy: ``listening`` on an address, ``stop``, and ``drained``: no call is left, and every answer has gone out.

From it: ``drain`` the connections, and ``ended`` with a code.
"""

VARIABLE: Final = "INTENT_EMBEDDED"
"""Environment variable that tells the embedded process what it is."""


class Control:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Return the control that uses ``end``, and owns it from now on."""
        return cls(*await asyncio.open_connection(sock=end))

    def tell(self, kind: Kind, **fields: Any) -> None:
        """Send a message. Does nothing where the other process is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"kind": kind} | fields).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message; ``None`` once the other process is gone."""
        line = await self._reader.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        """Let go of the sockets."""
        self._writer.close()
