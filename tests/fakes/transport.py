"""A fake transport without a socket: it keeps written bytes, and passes the bytes that a test feeds to its protocol.

A real socket delivers bytes and ends in an order that no seed repeats.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast


class FakeTransport(asyncio.Transport):
    """One end of a connection.

    Args:
        protocol: the protocol, which :meth:`connect` notifies of this connection.
        high_water_bytes: unread bytes above which the protocol is asked to pause; ``None``: no limit.
    """

    def __init__(self, protocol: Any, high_water_bytes: int | None = None) -> None:
        super().__init__({"peername": ("192.0.2.1", 50_000)})
        self.protocol = protocol
        self.written = bytearray()
        """Bytes that the peer has not read."""
        self.is_reading_paused = False
        self.is_writing_paused = False
        self.is_lost = False
        self._high_water_bytes = high_water_bytes
        self._closing = False

    def connect(self) -> None:
        self.protocol.connection_made(self)

    # Methods for tests.

    def feed(self, data: bytes) -> None:
        """Have the peer send ``data``, in reads as large as the protocol's buffer; return once all is read."""
        if self._closing:
            return
        if isinstance(self.protocol, asyncio.BufferedProtocol):
            view = memoryview(data)
            while view and not self._closing:
                buffer = memoryview(cast("bytearray", self.protocol.get_buffer(-1)))
                count = min(len(buffer), len(view))
                buffer[:count] = view[:count]
                self.protocol.buffer_updated(count)
                view = view[count:]
        else:
            self.protocol.data_received(data)

    def read(self, amount: int | None = None) -> bytes:
        """Have the peer read ``amount`` of the written bytes, all by default, and return them."""
        amount = len(self.written) if amount is None else amount
        data = bytes(self.written[:amount])
        del self.written[:amount]
        if self.is_writing_paused and not self.written and not self.is_lost:
            self.is_writing_paused = False
            self.protocol.resume_writing()
        return data

    def lose(self) -> None:
        """End the connection at once."""
        self._closing = True
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connection_lost(None)

    # Methods for the protocol.

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self.written += data
        most = self._high_water_bytes
        if most is not None and len(self.written) > most and not self.is_writing_paused:
            self.is_writing_paused = True
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self.protocol)
