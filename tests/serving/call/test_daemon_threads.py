from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref

import pytest

from serving.call.daemon_threads import DaemonThreads
from serving.domain.errors import InvalidModelFile
from tests.builders import PATIENCE, a_turn

HANGS = """
import asyncio, threading
from serving.call.daemon_threads import DaemonThreads

async def main():
    task = asyncio.create_task(DaemonThreads("hangs").run(threading.Event().wait))
    await asyncio.sleep(0.05)
    task.cancel()

asyncio.run(main())
"""


async def test_calls_run_at_the_same_time_and_idle_threads_run_further_ones() -> None:
    threads = DaemonThreads("tested", most_idle=2)
    all_at_once = threading.Barrier(5)

    def ident(barrier: bool = False) -> int:
        if barrier:
            all_at_once.wait(PATIENCE)
        return threading.get_ident()

    at_once = await asyncio.gather(*(threads.run(ident, True) for _ in range(5)))
    assert len(set(at_once)) == 5
    assert {await threads.run(ident) for _ in range(10)} <= set(at_once)
    threads.close()
    for thread in threading.enumerate():
        if thread.name == "tested":
            thread.join(PATIENCE)
            assert not thread.is_alive()


async def test_errors_reach_the_caller() -> None:
    threads = DaemonThreads("tested")
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert await threads.run(int, "7") == 7
    threads.close()


async def test_a_caller_that_leaves_does_not_wait_for_the_call() -> None:
    threads = DaemonThreads("tested")
    hangs = threading.Event()
    task = asyncio.create_task(threads.run(hangs.wait, PATIENCE))
    await a_turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)
    hangs.set()
    assert await threads.run(int) == 0
    threads.close()


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_program() -> None:
    subprocess.run([sys.executable, "-c", HANGS], check=True, timeout=PATIENCE)


class Content:
    """Stands for the bytes of a file, to which a weak reference is impossible."""


async def test_a_failed_call_leaves_nothing_of_what_it_has_read() -> None:
    known: list[weakref.ref[Content]] = []

    def fail() -> None:
        content = Content()
        known.append(weakref.ref(content))
        raise InvalidModelFile("save it again") from ValueError(content)

    threads = DaemonThreads("tested")
    gc.disable()
    try:
        with pytest.raises(InvalidModelFile, match="save it again") as caught:
            await threads.run(fail)
        assert known[0]() is None
        assert "Content" in repr(caught.value.__cause__)
    finally:
        gc.enable()
        threads.close()
