"""Unproductive reads, which bring no useful data: each connection may have a few; all further ones share one rate.

A read costs the same whether it brings one byte or a thousand. Hundreds of connections that send a few bytes again and
again, each of them at a modest rate, would fill every turn of the event loop, and other connections would wait. While a
connection is not read, it costs nothing: the kernel buffers its bytes, and one read takes all.
"""

from __future__ import annotations

from typing import Final

from grpc_http2.server.limits import ServerLimits

READ_BYTES: Final = 512
"""Productive bytes that pay for one unproductive read."""
_BYTES_OF_USE: Final = 1 << 10
_WRITTEN_FOR_ONE_OF_USE: Final = 32
# At this price, the largest frame, in parts of 1,448 bytes as on Ethernet, costs less than the initial credit.
_IDLE_FOR_ONE_OF_USE: Final = 2
# A read of ten bytes takes as long as a further hundred bytes of tiny frames.
_IDLE_BYTES_FOR_A_PLACE: Final = 128
_LONGEST_WAIT_SECONDS: Final = 5.0


class IdleReads:
    """Credit of one connection for unproductive reads.

    Clients need some of these reads: they acknowledge SETTINGS, send window updates, answer pings, and send a frame in
    parts, which is unproductive until the frame is complete. Productive data earns credit, so that connections in use
    never exhaust theirs.

    Args:
        limits: limits that define the number of reads.
        now: current time, in seconds.
    """

    __slots__ = ("_counted_at", "_limits", "_most", "credit")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._most = limits.idle_reads * READ_BYTES
        self.credit = self._most
        """Productive bytes that pay for unproductive reads; the next such read discards any excess over the limit."""
        self._counted_at = now

    def earn(self, written: int) -> None:
        """Add credit for ``written`` bytes sent to the caller, which sends window updates for them."""
        self.credit += READ_BYTES + written // _WRITTEN_FOR_ONE_OF_USE

    def is_too_much(self, received: int, idle: int, now: float) -> bool:
        """Charge a read of ``received`` bytes, ``idle`` of them unproductive; return whether the credit is spent."""
        if received - idle >= _BYTES_OF_USE:
            return False
        earned = int((now - self._counted_at) * self._limits.idle_reads_per_second * READ_BYTES)
        if earned:
            self._counted_at = now
        left = min(self._most, self.credit + earned) - READ_BYTES - idle // _IDLE_FOR_ONE_OF_USE
        self.credit = max(0, left)
        return left < 0


class IdleReadQueue:
    """Schedule for reading connections whose credit is exhausted: one after the other, at one rate for all.

    Args:
        limits: limits that define the rate.
    """

    __slots__ = ("_limits", "_next")

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._next = float("-inf")

    def wait(self, idle: int, now: float) -> float:
        """Return the seconds not to read a connection that has just brought ``idle`` unproductive bytes."""
        begins = min(max(self._next, now), now + _LONGEST_WAIT_SECONDS)
        places = 1.0 + idle / _IDLE_BYTES_FOR_A_PLACE
        self._next = begins + places / self._limits.idle_reads_per_second_of_all
        return begins - now
