"""Limits on what a connection costs apart from its calls: pings, and unproductive frames."""

from __future__ import annotations

from typing import Final

from grpc_http2.server.limits import ServerLimits

# Two window updates of 13 bytes each for every 1.6 KB written; no client sends them for less.
_WRITTEN_FOR_ONE: Final = 64
_LONG_AGO: Final = float("-inf")


class PingPolice:
    """Counts pings that arrive too often (gRPC proposal A8): a caller may ask for signs of life, not for work."""

    __slots__ = ("_last", "_limits", "_strikes")

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._last = _LONG_AGO
        self._strikes = 0

    def forgive(self) -> None:
        """Forget all pings: data was sent to the caller, which may have used the pings to measure the path."""
        self._last = _LONG_AGO
        self._strikes = 0

    def is_too_many(self, now: float) -> bool:
        """Count a ping at ``now``, in seconds; return whether the ping must end the connection."""
        too_soon = now - self._last < self._limits.min_ping_seconds
        self._last = now
        if too_soon:
            self._strikes += 1
        return self._strikes > self._limits.max_ping_strikes


class IdleBytes:
    """Token bucket of unproductive bytes.

    HTTP/2 does not limit a flood of legal frames (WINDOW_UPDATE, PRIORITY, SETTINGS, DATA of one byte). Each read is
    charged for the bytes that it brought beyond requests and bodies. Written data earns a part of its size, since a
    caller sends window updates for the data that it receives.
    """

    __slots__ = ("_allowance", "_earned_at", "_limits", "excused", "is_charged")

    def __init__(self, limits: ServerLimits, now: float) -> None:
        self._limits = limits
        self._allowance = float(limits.idle_bytes)
        self._earned_at = now
        self.excused = 0
        """Expected unproductive bytes, which are not charged."""
        self.is_charged = False
        """Whether the bucket is not full."""

    def excuse(self, count: int) -> None:
        """Expect ``count`` unproductive bytes: the rest of a request whose call was ended before it was complete."""
        self.excused = min(self._limits.connection_window_bytes, self.excused + count)

    def earn(self, written: int) -> None:
        """Add credit for ``written`` bytes sent to the caller."""
        self._allowance = min(self._limits.idle_bytes, self._allowance + written / _WRITTEN_FOR_ONE)

    def is_too_much(self, count: int, now: float) -> bool:
        """Charge ``count`` bytes at ``now``, in seconds; return whether these bytes must end the connection.

        A negative ``count`` refunds bytes that looked unproductive because the rest was still to come.
        """
        excused = min(max(count, 0), self.excused)
        self.excused -= excused
        earned = (now - self._earned_at) * self._limits.idle_bytes_per_second
        self._earned_at = now
        most = self._limits.idle_bytes
        self._allowance = min(most, min(most, self._allowance + earned) - (count - excused))
        self.is_charged = self._allowance < most
        return self._allowance < 0.0
