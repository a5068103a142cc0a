"""Reads that bring nothing of use: each connection has a few for itself, the others share a rate.

A read costs the same whether it brings one byte or a thousand. Hundreds of connections that send a few bytes again and
again, each of them at a modest rate, would fill every turn of the event loop, and their neighbours would wait. A
connection that is not read for a while costs nothing meanwhile: the kernel gathers its bytes, and one read takes all.
"""

from __future__ import annotations

from typing import Final

from grpc_http2.server.limits import ServerLimits

READ_BYTES: Final = 512
"""Bytes of use that pay for one read without use."""
_BYTES_OF_USE: Final = 1 << 10
_WRITTEN_FOR_ONE_OF_USE: Final = 32
# So the largest frame, in parts of 1,448 bytes as Ethernet carries them, costs less than a connection has at first.
_IDLE_FOR_ONE_OF_USE: Final = 2
# A read of ten bytes takes as long as a hundred bytes more of tiny frames.
_IDLE_BYTES_FOR_A_PLACE: Final = 128
_LONGEST_WAIT_SECONDS: Final = 5.0


class IdleReads:
    """The reads without use that a connection has for itself.

    Clients need some: they acknowledge settings, make room for answers, answer pings, and send a frame in parts, which
    is of no use before its end. Whatever is of use earns more, so that connections in use never come to the end.

    Args:
        limits: how many there are.
        now: in seconds.
    """

    __slots__ = ("_counted_at", "_limits", "_most", "credit")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._most = limits.idle_reads * READ_BYTES
        self.credit = self._most
        """Bytes of use that pay for reads without; what is beyond the limit is lost with the next of them."""
        self._counted_at = now

    def earn(self, written: int) -> None:
        """Take in that ``written`` bytes were sent to the caller, who makes room for them."""
        self.credit += READ_BYTES + written // _WRITTEN_FOR_ONE_OF_USE

    def is_too_much(self, received: int, idle: int, now: float) -> bool:
        """Charge a read of ``received`` bytes, ``idle`` of them without use; return whether the credit is spent."""
        if received - idle >= _BYTES_OF_USE:
            return False
        earned = int((now - self._counted_at) * self._limits.idle_reads_per_second * READ_BYTES)
        if earned:
            self._counted_at = now
        left = min(self._most, self.credit + earned) - READ_BYTES - idle // _IDLE_FOR_ONE_OF_USE
        self.credit = max(0, left)
        return left < 0


class IdleReadQueue:
    """When connections are read on whose credit is spent: one after the other, at one rate for all.

    Args:
        limits: the rate.
    """

    __slots__ = ("_limits", "_next")

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._next = float("-inf")

    def wait(self, idle: int, now: float) -> float:
        """Return for how many seconds a connection is not read that has just brought ``idle`` bytes without use."""
        begins = min(max(self._next, now), now + _LONGEST_WAIT_SECONDS)
        places = 1.0 + idle / _IDLE_BYTES_FOR_A_PLACE
        self._next = begins + places / self._limits.idle_reads_per_second_of_all
        return begins - now
