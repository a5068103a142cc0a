"""A process as one of several workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serving.workers.board import Board


@dataclass(frozen=True, slots=True)
class Membership:
    """Membership of one worker."""

    index: int
    """Place among the workers, from 0; a worker that follows one that ended has the same."""
    generation: int
    """Number of the processes that have ended in this place."""
    board: Board
    """Shared with the supervisor and the other workers."""
    memory: int
    """Descriptor of memory that the workers share, empty at first; what is in it, the program decides."""
    inboxes: Sequence[int]
    """Descriptors of sockets, one for each worker: what is sent there, that worker receives. Of its own, it reads."""

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self.board.workers
