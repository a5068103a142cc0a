"""Numbers that a supervisor and its workers share, in memory that all of them map.

Each cell has 64 bits and one writer, so reading a cell needs neither a lock nor a message. Cells are written through
memory views, which write in one store; the module ``struct`` zeroes a cell first, and other processes would see that.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any, Final

from serving.workers.shares import Shares

_CELL_BYTES: Final = 8
_FIELDS: Final = 2


class Board:
    """The cells of a number of workers.

    Args:
        descriptor: descriptor of the memory, as :meth:`create` opens it.
        workers: number of workers.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        self.descriptor = descriptor
        self.workers = workers
        self._memory = mmap.mmap(descriptor, _size(workers))
        view = memoryview(self._memory)
        self._counts = view.cast("Q")
        self._moments = view.cast("d")
        self._views: list[memoryview[Any]] = [view, self._counts, self._moments]
        self._generations = struct.Struct(f"@{workers}Q")
        self.connections = Shares(self._counts, _FIELDS * workers, workers)

    @classmethod
    def create(cls, workers: int) -> Board:
        """Return a new board, on which every worker has generation 0 and no heartbeat."""
        descriptor = os.memfd_create("workers", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _size(workers))
        return cls(descriptor, workers)

    def generations(self) -> Sequence[int]:
        """Return how many processes have ended in each worker's place: the generation of its current process."""
        return self._generations.unpack_from(self._memory)

    def end_generation(self, worker: int) -> None:
        """Record that the process of ``worker`` has ended. Only the supervisor calls this method."""
        self._counts[worker] += 1
        self.beat(worker, 0.0)
        self.connections.end(worker)

    def beat(self, worker: int, moment: float) -> None:
        """Record that the event loop of ``worker`` ran at ``moment``, in seconds of the monotonic clock."""
        self._moments[self.workers + worker] = moment

    def last_beat(self, worker: int) -> float:
        """Return the moment of the last heartbeat of ``worker``; 0 if its current process has not begun to serve."""
        return self._moments[self.workers + worker]

    def close(self) -> None:
        """Release the memory."""
        for view in reversed(self._views):
            view.release()
        self._memory.close()
        os.close(self.descriptor)


def _size(workers: int) -> int:
    return (_FIELDS * workers + Shares.cells(workers)) * _CELL_BYTES
