from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from grpc_http2.alarms import Alarm, Alarms, alarms_of
from tests.builders import PATIENCE


async def test_an_alarm_rings_once_and_never_early() -> None:
    loop = asyncio.get_running_loop()
    rung: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    started = loop.time()
    for seconds in (0.05, 0.0, 0.011):
        alarms_of(loop).after(seconds, lambda name: rung.put_nowait((name, loop.time())), str(seconds))
    seen = dict([await asyncio.wait_for(rung.get(), PATIENCE) for _ in range(3)])
    assert list(seen) == ["0.0", "0.011", "0.05"]
    assert all(at - started >= float(name) - 1e-6 for name, at in seen.items())
    assert rung.empty()


async def test_an_alarm_that_is_cancelled_does_not_ring_even_by_one_that_rings_with_it() -> None:
    alarms = Alarms(asyncio.get_running_loop())
    rung: list[str] = []
    done = asyncio.Event()
    pair: list[Alarm] = []

    def ring(name: str, other: int) -> None:
        rung.append(name)
        pair[other].cancel()

    pair += [alarms.after(0.0, ring, "a", 1), alarms.after(0.0, ring, "b", 0)]
    alarms.after(0.03, done.set)
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert len(rung) == 1


async def test_an_alarm_that_fails_is_told_and_the_others_ring() -> None:
    loop = asyncio.get_running_loop()
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    alarms, later = Alarms(loop), asyncio.Event()

    def fail() -> None:
        raise ZeroDivisionError

    alarms.after(0.0, fail)
    alarms.after(0.03, later.set)
    await asyncio.wait_for(later.wait(), PATIENCE)
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]


@pytest.mark.slow
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@given(delays=st.lists(st.floats(0.0, 0.06), min_size=1, max_size=30))
def test_every_alarm_rings_however_they_come(
    factory: Callable[[], asyncio.AbstractEventLoop], delays: list[float]
) -> None:
    async def run() -> None:
        alarms = Alarms(asyncio.get_running_loop())
        left = len(delays)
        done = asyncio.Event()

        def ring() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        for number, delay in enumerate(delays):
            alarms.after(delay, ring)
            if number % 3 == 0:
                await asyncio.sleep(delay / 10)
        await asyncio.wait_for(done.wait(), PATIENCE)
        assert not left

    loop = factory()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()
