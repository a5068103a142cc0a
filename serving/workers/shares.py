"""Connection counts of each worker, visible to all workers.

Each number has one writer: the worker that it describes or, for connections on their way to that worker, the worker
that gave them. Once a worker's process has ended, the supervisor is the writer until the next process begins.
"""

from __future__ import annotations

from typing import Final

_TAKES: Final = 0
_OPEN: Final = 1
_TAKEN: Final = 2
_OWN_CELLS: Final = 3


class Shares:
    """The connection counts of a number of workers.

    Args:
        counts: cells of the board.
        first: index of the first cell of these counts.
        workers: number of workers.
    """

    def __init__(self, counts: memoryview[int], first: int, workers: int) -> None:
        self._counts = counts
        self._first = first
        self._row = _OWN_CELLS + workers

    @staticmethod
    def cells(workers: int) -> int:
        """Return how many cells the counts of ``workers`` workers take."""
        return workers * (_OWN_CELLS + workers)

    def load(self, worker: int) -> int | None:
        """Return the connections that a worker has or is about to get; ``None`` if it accepts none."""
        at = self._at(worker)
        takes, is_open, taken, *given = self._counts[at : at + self._row].tolist()
        return is_open + sum(given) - taken if takes else None

    def set_taking(self, worker: int, *, takes: bool) -> None:
        """Record whether a worker accepts connections from other workers."""
        self._counts[self._at(worker) + _TAKES] = int(takes)

    def set_open(self, worker: int, count: int) -> None:
        """Record how many connections a worker has."""
        self._counts[self._at(worker) + _OPEN] = count

    def count_given(self, giver: int, worker: int) -> None:
        """Count a connection that ``giver`` has given to ``worker``."""
        self._counts[self._at(worker) + _OWN_CELLS + giver] += 1

    def count_taken(self, worker: int) -> None:
        """Count a connection, given to ``worker``, that ``worker`` has taken."""
        self._counts[self._at(worker) + _TAKEN] += 1

    def end(self, worker: int) -> None:
        """Record that the process of a worker has ended. Connections on their way to it wait for the next process."""
        self.set_taking(worker, takes=False)
        self.set_open(worker, 0)

    def _at(self, worker: int) -> int:
        return self._first + worker * self._row
