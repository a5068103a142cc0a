"""Bounds on the memory and time that reading one file may take.

One byte of a pickle can ask for more than a hundred bytes of memory, and a byte costs a microsecond, so the size of a
file bounds neither.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from serving.domain.errors import InvalidModelFile

BYTES_PER_BYTE: Final = 32
"""Most bytes of memory that one byte of a pickle of any torchtext release takes, with what is built from it."""
LEAST_BYTES: Final = 1 << 20
"""Bytes of memory that the smallest pickle may take."""


class NeedsMoreMemory(InvalidModelFile):
    """The objects that a file describes take more memory than reading it may take."""


class TooManyItems(InvalidModelFile):
    """A list or a dictionary of a file has more items than the reader can use."""


def _do_nothing() -> None:
    """Do nothing: time is not bounded."""


class Allowance:
    """Memory, items and time that reading one file may take, shared by the pickles of the file.

    Args:
        most_bytes: maximum memory of the objects that the file describes, in bytes.
        most_items: maximum number of items of a list, and about that of a dictionary of plain data.
        check: called again and again; raises an error to end the reading.
    """

    def __init__(
        self, most_bytes: int, *, most_items: int = sys.maxsize, check: Callable[[], None] = _do_nothing
    ) -> None:
        self.most_items = most_items
        self.check = check
        self._left = most_bytes

    def cover(self, size: int) -> None:
        """Check that the pickle that is being read may take ``size`` bytes in total.

        Raises:
            NeedsMoreMemory: it may not.
        """
        if size > self._left:
            raise NeedsMoreMemory("a file of the model describes more than its size justifies; publish the model again")

    def keep(self, size: int) -> None:
        """Record that the objects of a pickle take ``size`` bytes from now on. Raises as :meth:`cover` does."""
        self.cover(size)
        self._left -= size


def allowance_for(size: int) -> Allowance:
    """Return an allowance that suffices for every real file of ``size`` bytes, in unbounded time."""
    return Allowance(LEAST_BYTES + BYTES_PER_BYTE * size)
