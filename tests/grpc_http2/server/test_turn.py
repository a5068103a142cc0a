"""One turn of the loop serves many connections: a failure of one does not affect the others."""

from __future__ import annotations

from typing import Any

from grpc_http2.turn import Turn
from tests.builders import a_turn
from tests.grpc_http2.server.peers import Peer, peer_of
from tests.grpc_http2.server.service import hosted


async def test_work_at_the_end_of_a_turn_that_fails_costs_the_others_nothing(logged: list[Any]) -> None:
    done: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError

    turn = Turn.of_running_loop()
    turn.at_end(fail)
    turn.at_end(lambda: done.append("second"))
    turn.at_end(lambda: turn.at_end(lambda: done.append("third")))
    await a_turn(2)
    assert done == ["second", "third"]
    assert [line["log_level"] for line in logged] == ["error"]
    turn.at_end(lambda: done.append("next turn"))
    await a_turn(2)
    assert done[-1] == "next turn"


async def test_a_connection_that_fails_when_it_is_written_ends_alone(logged: list[Any]) -> None:
    async with hosted() as served, peer_of(served.port) as broken:
        await broken.asked(b"a")
        (connection,) = served.server._connections
        other = await Peer.connect(served.port)

        def fail() -> None:
            raise ZeroDivisionError

        connection.flush = fail  # type: ignore[method-assign]
        broken.call(b"b")
        for _ in range(3):
            assert (await other.asked(b"a")).message == b"a"
        await broken.end()
        assert {line["event"] for line in logged} >= {"connection failed"}
        assert (await other.asked(b"a")).message == b"a"
