"""Charges of a connection for reads that bring little useful data, and for pings; productive data earns them back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from grpc_http2.engine import Event, RequestReceived
from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.protection.idle_reads import READ_BYTES, IdleReadQueue, IdleReads
from grpc_http2.server.protection.policing import IdleBytes, PingPolice
from grpc_http2.wire import header_bytes

# More than the acknowledgements of all tolerated pings.
_BODY_BYTES: Final = 256


class Charges:
    """Charges of one connection.

    Args:
        limits: limits on unproductive bytes, unproductive reads, and pings.
        queue: schedule for reading connections whose credit is exhausted.
        now: current time, in seconds.
    """

    __slots__ = ("_queue", "idle_bytes", "idle_reads", "pause_seconds", "pings")

    def __init__(self, limits: ServerLimits, queue: IdleReadQueue, now: float) -> None:
        self._queue = queue
        self.idle_bytes = IdleBytes(limits, now)
        self.idle_reads = IdleReads(limits, now)
        self.pings = PingPolice(limits)
        self.pause_seconds = 0.0
        """Time for which the connection must not be read, in seconds; the reader resets it."""

    def charge(self, events: Sequence[Event], received: int, idle: int, now: float, *, may_end: bool) -> bool:
        """Charge a read that brought little useful data, or refund what earlier reads paid for parts of its data.

        Args:
            events: what the read brought.
            received: bytes of the read.
            idle: bytes of the read that were unproductive, apart from the headers of requests; negative if the useful
                data exceeds the bytes of the read.
            now: current time, in seconds.
            may_end: whether unproductive bytes may end the connection. After the final GOAWAY they may not: the engine
                reports no further requests.

        Returns:
            Whether the connection must end: the caller has exceeded its limit of unproductive bytes.
        """
        is_charged = idle > 0 or self.idle_bytes.is_charged
        if is_charged:
            idle -= sum(header_bytes(event.headers) for event in events if isinstance(event, RequestReceived))
        if idle < 0:
            self.idle_reads.credit -= idle
        else:
            wasted = max(0, idle - self.idle_bytes.excused)
            if self.idle_reads.is_too_much(received, wasted, now):
                self.pause_seconds = self._queue.wait(wasted, now)
        return may_end and is_charged and self.idle_bytes.is_too_much(idle, now)

    def earn(self, written: int) -> None:
        """Add credit for ``written`` bytes sent to the caller."""
        if written > _BODY_BYTES:
            # Callers that receive a body send window updates, and pings to measure the path.
            self.pings.forgive()
            self.idle_bytes.earn(written)
            self.idle_reads.earn(written)

    def earn_message(self) -> None:
        """Add credit for one message: callers measure the path with pings whenever they receive data."""
        self.idle_reads.credit += READ_BYTES
        self.pings.forgive()
