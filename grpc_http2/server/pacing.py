"""How much of a connection is taken in one turn of the loop, by what the former turns brought."""

from __future__ import annotations

from typing import Final

_FIRST_ANSWER_BYTES: Final = 128 << 10
_FEWEST_CALLS: Final = 4
_WEIGHT: Final = 1 / 8
_FIRST_READ_BYTES: Final = 2 << 10


class CallPacing:
    """The calls of a connection that are served in one turn.

    One read may bring hundreds of calls, and what they are answered is known too late to let them wait. So a turn takes
    as many as would be answered with about the bytes that a connection may have unsent, were they answered like the
    former ones; the next turn takes more, unless the caller does not read.

    Args:
        unsent_bytes: what a connection may have unsent.
    """

    __slots__ = ("_mean", "_unsent_bytes")

    def __init__(self, unsent_bytes: int) -> None:
        self._unsent_bytes = unsent_bytes
        self._mean = float(_FIRST_ANSWER_BYTES)

    def count(self, answer_bytes: int) -> None:
        """Take in the size of an answer."""
        self._mean += (answer_bytes - self._mean) * _WEIGHT

    def calls_of_a_turn(self) -> int:
        """Return how many calls a turn takes."""
        return max(_FEWEST_CALLS, int(self._unsent_bytes / (self._mean + 1.0)))


class ReadPacing:
    """The bytes of a connection that are read in one turn: few until they turn out to be of use.

    Args:
        buffer: what is read into; as a whole, where a caller sends much that is of use.
    """

    __slots__ = ("_whole", "buffer")

    def __init__(self, buffer: memoryview) -> None:
        self._whole = buffer
        self.buffer = buffer[:_FIRST_READ_BYTES]
        """What the next read goes into."""

    def count(self, received: int, idle: int) -> None:
        """Take in that a read brought ``received`` bytes, ``idle`` of which are of no use; negative, if none are."""
        if idle > 0:
            if idle * 2 > received and len(self.buffer) > _FIRST_READ_BYTES:
                self.buffer = self._whole[:_FIRST_READ_BYTES]
        elif received == len(self.buffer) < len(self._whole):
            self.buffer = self._whole[: 2 * received]
