"""Connections of each worker, as all of them see it.

Each number has one writer: the worker that it is about, or, of the connections on their way to it, whoever gave them.
Once a worker's process has ended, its supervisor is the writer until the next one begins.
"""

from __future__ import annotations

from typing import Final

_TAKES: Final = 0
_OPEN: Final = 1
_TAKEN: Final = 2
_OWN_CELLS: Final = 3


class Shares:
    """The numbers of so many workers.

    Args:
        counts: cells of the board.
        first: number of the first cell that is theirs.
        workers: number of workers.
    """

    def __init__(self, counts: memoryview[int], first: int, workers: int) -> None:
        self._counts = counts
        self._first = first
        self._row = _OWN_CELLS + workers

    @staticmethod
    def cells(workers: int) -> int:
        """Return how many cells they take."""
        return workers * (_OWN_CELLS + workers)

    def load(self, worker: int) -> int | None:
        """Return the connections that a worker has or is about to get; ``None`` where it takes none."""
        at = self._at(worker)
        takes, is_open, taken, *given = self._counts[at : at + self._row].tolist()
        return is_open + sum(given) - taken if takes else None

    def set_taking(self, worker: int, *, takes: bool) -> None:
        """Note whether a worker takes the connections of others."""
        self._counts[self._at(worker) + _TAKES] = int(takes)

    def set_open(self, worker: int, count: int) -> None:
        """Note how many connections a worker has."""
        self._counts[self._at(worker) + _OPEN] = count

    def count_given(self, giver: int, worker: int) -> None:
        """Count a connection that ``giver`` has given to ``worker``."""
        self._counts[self._at(worker) + _OWN_CELLS + giver] += 1

    def count_taken(self, worker: int) -> None:
        """Count a connection that ``worker`` has taken, of those that were given to it."""
        self._counts[self._at(worker) + _TAKEN] += 1

    def end(self, worker: int) -> None:
        """Note that the process of a worker has ended. Those on their way to it wait for the next one."""
        self.set_taking(worker, takes=False)
        self.set_open(worker, 0)

    def _at(self, worker: int) -> int:
        return self._first + worker * self._row
