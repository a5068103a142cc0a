"""A process as one of several workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.workers.board import Board


@dataclass(frozen=True, slots=True)
class Membership:
    """Membership of one worker."""

    index: int
    """Place among the workers, from 0; a worker that replaces one that ended has the same place."""
    generation: int
    """Number of processes that have ended in this place."""
    board: Board
    """Board that is shared with the supervisor and the other workers."""
    memory: int
    """Descriptor of memory that the workers share, empty at first; the program decides on its content."""
    inboxes: Sequence[int]
    """Descriptors of sockets, one for each worker: this worker reads from its own and sends to the others."""

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self.board.workers
