"""The sockets over which workers give each other connections."""

from __future__ import annotations

import socket


class Inboxes:
    """A pair of sockets for each worker. They stay when its process ends: what is in them waits for the next one.

    Args:
        workers: number of workers.
    """

    def __init__(self, workers: int) -> None:
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]

    def of(self, worker: int) -> list[int]:
        """Return what ``worker`` gets: of its own pair the end to receive from, of the others those to send to."""
        return [pair[index != worker].fileno() for index, pair in enumerate(self._pairs)]

    def close(self) -> None:
        """Close all of them."""
        for pair in self._pairs:
            for end in pair:
                end.close()
