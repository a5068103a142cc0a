from __future__ import annotations

import os

from serving.workers.board import Board


def test_what_one_process_notes_all_see() -> None:
    board = Board.create(3)
    other = Board(os.dup(board.descriptor), 3)
    try:
        assert list(other.generations()) == [0, 0, 0]
        assert other.last_beat(1) == 0.0

        other.beat(1, 12.5)
        assert board.last_beat(1) == 12.5
        assert board.last_beat(0) == board.last_beat(2) == 0.0

        board.end_generation(1)
        board.end_generation(1)
        assert list(other.generations()) == [0, 2, 0]
    finally:
        board.close()
        other.close()


def test_a_process_that_has_ended_has_no_heartbeat() -> None:
    board = Board.create(2)
    try:
        board.beat(0, 3.0)
        board.end_generation(0)
        assert board.last_beat(0) == 0.0
    finally:
        board.close()
