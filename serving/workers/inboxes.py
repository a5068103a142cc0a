"""The sockets over which workers give each other connections."""

from __future__ import annotations

import socket


class Inboxes:
    """A pair of sockets for each worker. The pair outlives the process: its content waits for the next process.

    Args:
        workers: number of workers.
    """

    def __init__(self, workers: int) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]

    def of(self, worker: int) -> list[int]:
        """Return the descriptors for ``worker``: the receiving end of its own pair, the sending ends of all others."""
        return [pair[index != worker].fileno() for index, pair in enumerate(self._pairs)]

    def close(self) -> None:
        """Close all sockets."""
        for pair in self._pairs:
            for end in pair:
                end.close()
