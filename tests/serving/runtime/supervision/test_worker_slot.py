from __future__ import annotations

import errno
import os

import pytest
import structlog

from serving.runtime.supervision.process import WorkerProcess
from serving.runtime.supervision.times import Times
from serving.runtime.supervision.worker_slot import CannotStart, WorkerSlot
from serving.workers.board import Board


async def test_where_the_system_has_no_process_to_give_a_worker_cannot_start() -> None:
    async def start(index: int, generation: int) -> WorkerProcess:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    board = Board.create(1)
    slot = WorkerSlot(0, start, board, Times(), lambda _: None)
    try:
        with structlog.testing.capture_logs() as lines, pytest.raises(CannotStart) as caught:
            await slot.keep()
    finally:
        board.close()
    assert caught.value.code == 1
    assert [line["event"] for line in lines] == ["worker cannot be started"]
    assert lines[0]["reason"] == os.strerror(errno.EAGAIN)
