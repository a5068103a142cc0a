"""Pacing of a connection: how much of it is processed in one turn of the loop, based on earlier turns."""

from __future__ import annotations

from typing import Final

_FIRST_ANSWER_BYTES: Final = 128 << 10
_FEWEST_CALLS: Final = 4
_WEIGHT: Final = 1 / 8
_FIRST_READ_BYTES: Final = 2 << 10


class CallPacing:
    """Number of calls of a connection that are served in one turn.

    One read may bring hundreds of calls, and the size of their responses is known too late to make the calls wait. A
    turn therefore takes as many calls as would produce about the bytes that a connection may have unsent, if their
    responses were as large as earlier ones; the next turn takes more, unless the caller does not read.

    Args:
        unsent_bytes: bytes that a connection may have unsent.
    """

    __slots__ = ("_mean", "_unsent_bytes")

    def __init__(self, unsent_bytes: int) -> None:
        self._unsent_bytes = unsent_bytes
        self._mean = float(_FIRST_ANSWER_BYTES)

    def count(self, answer_bytes: int) -> None:
        """Record the size of a response."""
        self._mean += (answer_bytes - self._mean) * _WEIGHT

    def calls_of_a_turn(self) -> int:
        """Return the number of calls that a turn takes."""
        return max(_FEWEST_CALLS, int(self._unsent_bytes / (self._mean + 1.0)))


class ReadPacing:
    """Number of bytes of a connection that are read in one turn: few until they prove productive.

    Args:
        buffer: read buffer; used as a whole if a caller sends much productive data.
    """

    __slots__ = ("_whole", "buffer")

    def __init__(self, buffer: memoryview) -> None:
        self._whole = buffer
        self.buffer = buffer[:_FIRST_READ_BYTES]
        """Buffer for the next read."""

    def count(self, received: int, idle: int) -> None:
        """Record a read of ``received`` bytes, ``idle`` of them unproductive; ``idle`` is negative if none are."""
        if idle > 0:
            if idle * 2 > received and len(self.buffer) > _FIRST_READ_BYTES:
                self.buffer = self._whole[:_FIRST_READ_BYTES]
        elif received == len(self.buffer) < len(self._whole):
            self.buffer = self._whole[: 2 * received]
