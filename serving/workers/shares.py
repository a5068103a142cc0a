"""Connections of each worker, as all of them see it.

Each number has one writer: the worker that it is about, or, of the connections on their way to it, whoever gave them.
Once a worker's process has ended, its supervisor is the writer until the next one begins.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

_CELL_BYTES: Final = 8
_OWN_CELLS: Final = 3
_OPEN: Final = 1
_TAKEN: Final = 2
_COUNT: Final = struct.Struct("=Q")


class Shares:
    """The numbers of so many workers.

    Args:
        memory: that all of them map.
        offset: where the numbers begin in it, in bytes.
        workers: number of workers.
    """

    def __init__(self, memory: mmap.mmap, offset: int, workers: int) -> None:
        self._memory = memory
        self._offset = offset
        self._workers = workers
        self._row = struct.Struct(f"={_OWN_CELLS + workers}Q")

    @staticmethod
    def size(workers: int) -> int:
        """Return the bytes that they take."""
        return workers * (_OWN_CELLS + workers) * _CELL_BYTES

    def load(self, worker: int) -> int | None:
        """Return the connections that a worker has or is about to get; ``None`` where it takes none."""
        takes, is_open, taken, *given = self._row.unpack_from(self._memory, self._at(worker))
        return is_open + sum(given) - taken if takes else None

    def set_taking(self, worker: int, *, takes: bool) -> None:
        """Note whether a worker takes the connections of others."""
        self._write(worker, 0, int(takes))

    def set_open(self, worker: int, count: int) -> None:
        """Note how many connections a worker has."""
        self._write(worker, _OPEN, count)

    def count_given(self, giver: int, worker: int) -> None:
        """Count a connection that ``giver`` has given to ``worker``."""
        self._add(worker, _OWN_CELLS + giver)

    def count_taken(self, worker: int) -> None:
        """Count a connection that ``worker`` has taken, of those that were given to it."""
        self._add(worker, _TAKEN)

    def end(self, worker: int) -> None:
        """Note that the process of a worker has ended. Those on their way to it wait for the next one."""
        self.set_taking(worker, takes=False)
        self.set_open(worker, 0)

    def _at(self, worker: int, cell: int = 0) -> int:
        return self._offset + (worker * (_OWN_CELLS + self._workers) + cell) * _CELL_BYTES

    def _write(self, worker: int, cell: int, value: int) -> None:
        _COUNT.pack_into(self._memory, self._at(worker, cell), value)

    def _add(self, worker: int, cell: int) -> None:
        count: int = _COUNT.unpack_from(self._memory, self._at(worker, cell))[0]
        self._write(worker, cell, count + 1)
