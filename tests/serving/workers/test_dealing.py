from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from serving.workers import dealing
from serving.workers.board import Board
from serving.workers.dealing import Dealer
from serving.workers.inboxes import Inboxes
from serving.workers.membership import Membership
from tests.builders import PATIENCE


@dataclass
class Worker:
    """A worker of a test, which keeps its connections in a list."""

    index: int
    board: Board
    inboxes: Inboxes
    generation: int = 0
    connections: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        descriptors = [os.dup(each) for each in self.inboxes.of(self.index)]
        membership = Membership(self.index, self.generation, self.board, -1, descriptors)
        self.dealer = Dealer(membership, lambda: len(self.connections))
        self.dealer.begin(self.connections.append)
        self.beat()

    def beat(self, age: float = 0.0) -> None:
        self.board.beat(self.index, time.monotonic() - age)

    def accept(self) -> bool:
        """Accept a connection; return whether it was kept."""
        ours, theirs = socket.socketpair()
        ours.close()
        if self.dealer.keeps(theirs):
            self.connections.append(theirs)
            return True
        return False

    def close(self) -> None:
        self.dealer.end()
        for connection in self.connections:
            connection.close()


@dataclass
class Crew:
    """All workers of a test."""

    count: int
    workers: list[Worker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.board = Board.create(self.count)
        self.inboxes = Inboxes(self.count)
        self.workers = [Worker(index, self.board, self.inboxes) for index in range(self.count)]

    @property
    def loads(self) -> list[int | None]:
        return [self.board.connections.load(index) for index in range(self.count)]

    def have(self) -> list[int]:
        return [len(worker.connections) for worker in self.workers]

    async def settle(self) -> list[int]:
        """Return the number of connections of each worker, once all connections have arrived."""
        async with asyncio.timeout(PATIENCE):
            while self.have() != self.loads:  # noqa: ASYNC110 - numbers in memory send no notification
                await asyncio.sleep(0.001)
        return self.have()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        self.inboxes.close()
        self.board.close()


@pytest.fixture
async def crew() -> AsyncIterator[Crew]:
    it = Crew(3)
    yield it
    it.close()


async def test_connections_that_one_worker_accepts_are_dealt_out_evenly(crew: Crew) -> None:
    # The connections arrive all at once, and count already while they are on their way.
    kept = [crew.workers[0].accept() for _ in range(9)]
    assert sum(kept) == 3
    assert await crew.settle() == [3, 3, 3]


async def test_whoever_accepts_keeps_a_connection_where_nobody_has_fewer(crew: Crew) -> None:
    assert [worker.accept() for worker in crew.workers] == [True, True, True]
    assert [worker.accept() for worker in crew.workers] == [True, True, True]
    assert await crew.settle() == [2, 2, 2]


async def test_a_worker_with_fewer_since_some_have_left_gets_the_next(crew: Crew) -> None:
    for _ in range(6):
        crew.workers[0].accept()
    await crew.settle()
    worker = crew.workers[2]
    while worker.connections:
        worker.connections.pop().close()
    worker.dealer.fewer()
    assert [crew.workers[1].accept() for _ in range(2)] == [False, False]
    assert await crew.settle() == [2, 2, 2]


async def test_a_worker_that_drains_gets_none_and_gives_none_and_takes_those_on_their_way(crew: Crew) -> None:
    for _ in range(3):
        crew.workers[0].accept()
    crew.workers[1].dealer.withdraw()
    assert len(crew.workers[1].connections) == 1
    assert [crew.workers[1].accept() for _ in range(4)] == [True] * 4
    for _ in range(4):
        crew.workers[0].accept()
    assert crew.loads[1] is None
    crew.workers[2].dealer.withdraw()
    assert len(crew.workers[1].connections) == 5
    assert len(crew.workers[0].connections) + len(crew.workers[2].connections) == 6


async def test_a_worker_whose_event_loop_stands_still_gets_none(crew: Crew) -> None:
    crew.workers[1].beat(age=dealing.ALIVE_SECONDS + 1.0)
    for _ in range(6):
        crew.workers[0].accept()
    assert await crew.settle() == [3, 0, 3]


async def test_what_was_on_its_way_to_a_worker_that_died_its_successor_takes(crew: Crew) -> None:
    crew.workers[1].dealer.end()
    for _ in range(6):
        crew.workers[0].accept()
    assert crew.loads == [2, 2, 2]
    crew.board.end_generation(1)
    assert crew.loads[1] is None
    assert [crew.workers[0].accept() for _ in range(2)].count(True) == 1
    crew.workers[1].close()
    crew.workers[1] = Worker(1, crew.board, crew.inboxes, generation=1)
    assert await crew.settle() == [3, 2, 3]


async def test_a_connection_is_kept_where_too_many_are_on_their_way(crew: Crew) -> None:
    crew.workers[1].dealer.end()
    crew.workers[2].dealer.withdraw()
    giver = crew.workers[0]
    # This is as if the other worker took no connections for long: no connection is lost.
    kept = sum(giver.accept() for _ in range(2000))
    assert kept > 1000
    assert kept + (crew.loads[1] or 0) == 2000


async def test_of_many_workers_some_are_looked_at() -> None:
    crew = Crew(3 * dealing.MOST_COMPARED)
    try:
        for _ in range(20 * crew.count):
            crew.workers[0].accept()
        have = await crew.settle()
        assert sum(have) == 20 * crew.count
        assert max(have) - min(have) <= 5
    finally:
        crew.close()
