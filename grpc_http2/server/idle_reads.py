"""Reads that bring nothing of use: each connection has a few for itself, the others share a rate.

A read costs the same whether it brings one byte or a thousand. Hundreds of connections that send a few bytes again and
again, each of them at a modest rate, would fill every turn of the event loop, and their neighbours would wait. A
connection that is not read for a while costs nothing meanwhile: the kernel gathers its bytes, and one read takes all.
"""

from __future__ import annotations

from typing import Final

from grpc_http2.server.limits import ServerLimits

BYTES_FOR_ONE: Final = 512
"""Bytes of use that pay for one read without use."""
_WRITTEN_FOR_ONE: Final = 16 << 10
_BYTES_OF_USE: Final = 1 << 10
# The largest frame in parts of 1,448 bytes, as Ethernet carries them, counts for less than a connection has.
_IDLE_BYTES_FOR_ONE: Final = 1 << 10
# A read of ten bytes takes as long as the frames of one byte in a hundred and more.
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

    __slots__ = ("_counted_at", "_limits", "credit")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._counted_at = now
        self.credit = float(limits.idle_reads)
        """Number of reads without use that are left; more than the limit counts as the limit with the next of them."""

    def earn(self, written: int) -> None:
        """Take in that ``written`` bytes were sent to the caller, who makes room for them."""
        self.credit += 1.0 + written / _WRITTEN_FOR_ONE

    def is_too_much(self, received: int, idle: int, now: float) -> bool:
        """Charge a read of ``received`` bytes, ``idle`` of them without use; return whether the credit is spent."""
        if received - idle >= _BYTES_OF_USE:
            return False
        earned = (now - self._counted_at) * self._limits.idle_reads_per_second
        self._counted_at = now
        left = min(self._limits.idle_reads, self.credit + earned) - (1.0 + idle / _IDLE_BYTES_FOR_ONE)
        self.credit = max(0.0, left)
        return left < 0.0


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
