"""Even distribution of connections among workers.

The kernel chooses the worker for a connection by a hash of addresses and ports, which gives one worker most of the
connections if there are few. So a worker that accepts a connection while another worker has fewer gives the connection
to that other worker before a byte of it is read: the socket is sent over a pair of sockets that the supervisor created.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable
from typing import Final

import structlog

from serving.workers.membership import Membership

log = structlog.get_logger()

MOST_COMPARED: Final = 16
"""Maximum number of other workers that are compared for a connection; if there are more, a random sample."""
ALIVE_SECONDS: Final = 3.0
"""Maximum age of the last heartbeat of a worker that receives connections from other workers, in seconds."""

_MARK: Final = b"\0"
_AT_ONCE: Final = 64


class Dealer:
    """A :class:`~grpc_http2.server.listening.Dealing` of one worker. Belongs to its event loop.

    Args:
        membership: membership of the worker.
        connections: returns how many connections the worker has.
    """

    def __init__(self, membership: Membership, connections: Callable[[], int]) -> None:
        self._index = membership.index
        self._board = membership.board
        self._shares = membership.board.connections
        self._others = [index for index in range(membership.workers) if index != membership.index]
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._inboxes = [socket.socket(fileno=each) for each in membership.inboxes]
        for inbox in self._inboxes:
            inbox.setblocking(False)
        self._adopt: Callable[[socket.socket], None] | None = None

    def begin(self, adopt: Callable[[socket.socket], None]) -> None:
        """Accept connections from other workers from now on.

        Args:
            adopt: serves a connection, and owns it from then on.
        """
        self._adopt = adopt
        self._loop.add_reader(self._inboxes[self._index], self._receive)
        self._shares.set_open(self._index, self._connections())
        self._shares.set_taking(self._index, takes=True)

    def keeps(self, connection: socket.socket) -> bool:
        """Return whether this worker keeps a connection that it has accepted; otherwise another worker now has it."""
        own = self._connections()
        self._shares.set_open(self._index, own)
        if self._is_given(connection):
            connection.close()
            return False
        self._shares.set_open(self._index, own + 1)
        return True

    def fewer(self) -> None:
        """Record that this worker has one connection fewer."""
        self._shares.set_open(self._index, self._connections())

    def withdraw(self) -> None:
        """Accept no more connections from other workers, except those on their way."""
        self._shares.set_taking(self._index, takes=False)
        self._receive()

    def end(self) -> None:
        """Stop receiving connections from other workers."""
        self._loop.remove_reader(self._inboxes[self._index])

    def _is_given(self, connection: socket.socket) -> bool:
        load = self._shares.load(self._index)
        # A worker that accepts none because it drains gives none away either, because all workers drain at the same
        # time.
        target = None if load is None else self._least_loaded(load)
        if target is None:
            return False
        try:
            socket.send_fds(self._inboxes[target], [_MARK], [connection.fileno()])
        except OSError:
            # Too many connections are on their way to the target.
            return False
        self._shares.count_given(self._index, target)
        return True

    def _least_loaded(self, own: int) -> int | None:
        others = self._others
        if len(others) > MOST_COMPARED:
            others = random.sample(others, MOST_COMPARED)
        alive_since = time.monotonic() - ALIVE_SECONDS
        found: int | None = None
        for index in others:
            load = self._shares.load(index)
            if load is not None and load < own and self._board.last_beat(index) > alive_since:
                found, own = index, load
        return found

    def _receive(self) -> None:
        inbox = self._inboxes[self._index]
        for _ in range(_AT_ONCE):
            try:
                mark, descriptors, _, _ = socket.recv_fds(inbox, len(_MARK), 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError as error:
                # The connection is lost: this process has no descriptor left for it.
                log.warning("connection from another worker was not accepted", reason=error.strerror)
                continue
            if not mark:
                # No process is left that could give connections.
                self._loop.remove_reader(inbox)
                return
            for descriptor in descriptors:
                self._take(descriptor)

    def _take(self, descriptor: int) -> None:
        connection = socket.socket(fileno=descriptor)
        connection.setblocking(False)
        self._shares.count_taken(self._index)
        if self._adopt is None:
            connection.close()
        else:
            self._adopt(connection)
        self._shares.set_open(self._index, self._connections())
