"""Work that several callers wait for."""

from __future__ import annotations

import asyncio
import gc

import pytest
import structlog

from serving.call.deadline import Deadline
from serving.call.tasks import SingleFlight, Tasks, done_within, joined
from serving.domain.errors import DeadlineExceeded, ModelNotFound, Unavailable


class Work:
    """Work that ends when the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    async def run(self) -> str:
        self.begun += 1
        await self.may_end.wait()
        return "done"

    async def fail(self) -> str:
        await self.may_end.wait()
        raise ModelNotFound("no model has this runId")


async def test_many_wait_for_one_and_each_leaves_when_it_wants() -> None:
    work: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    patient = [asyncio.ensure_future(done_within(work, None)) for _ in range(100)]
    hasty = [asyncio.ensure_future(done_within(work, 0.001)) for _ in range(100)]
    leaving = [asyncio.ensure_future(done_within(work, 60.0)) for _ in range(100)]
    assert await asyncio.gather(*hasty) == [False] * 100
    for each in leaving:
        each.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*leaving, return_exceptions=True)
    )
    assert not any(each.done() for each in patient)
    work.set_result("done")
    assert await asyncio.gather(*patient) == [True] * 100
    assert await done_within(work, 0.0)


async def test_work_of_one_key_is_begun_once_and_again_after_its_end() -> None:
    tasks, work = Tasks(), Work()
    flight: SingleFlight[str, str] = SingleFlight(tasks)
    first, second = flight.begin("a", work.run), flight.begin("a", work.run)
    assert first is second
    flight.begin("b", work.run)
    assert ("a" in flight, "c" in flight, len(flight)) == (True, False, 2)
    work.may_end.set()
    assert [await joined(first), await joined(second)] == ["done", "done"]
    await asyncio.sleep(0)
    assert (work.begun, len(flight), flight.get("a")) == (2, 0, None)
    assert await joined(flight.begin("a", work.run)) == "done"
    assert work.begun == 3


async def test_a_caller_that_leaves_or_times_out_does_not_end_the_work_of_the_others() -> None:
    tasks, work = Tasks(), Work()
    shared = tasks.start(work.run())
    leaves, stays = asyncio.ensure_future(joined(shared)), asyncio.ensure_future(joined(shared))
    await asyncio.sleep(0)
    leaves.cancel()
    with pytest.raises(DeadlineExceeded):
        await joined(shared, Deadline.after(0.01))
    work.may_end.set()
    assert await stays == "done"
    assert leaves.cancelled()


async def test_each_caller_gets_an_error_of_its_own() -> None:
    tasks, work = Tasks(), Work()
    shared = tasks.start(work.fail())
    work.may_end.set()
    told = await asyncio.gather(joined(shared), joined(shared), return_exceptions=True)
    assert [type(error) for error in told] == [ModelNotFound, ModelNotFound]
    assert told[0] is not told[1]


async def test_callers_of_work_that_ends_with_its_owner_are_told_to_try_again() -> None:
    tasks, work = Tasks(), Work()
    shared = tasks.start(work.run())
    waiting = asyncio.ensure_future(joined(shared))
    await asyncio.sleep(0)
    await tasks.close()
    with pytest.raises(Unavailable, match="try again"):
        await waiting
    assert [*tasks] == []


async def test_a_fault_of_background_work_is_logged() -> None:
    async def faulty() -> None:
        raise KeyError("a bug")

    with structlog.testing.capture_logs() as logs:
        await asyncio.wait([Tasks().start(faulty())])
        await asyncio.sleep(0)
    (line,) = logs
    assert (line["event"], line["log_level"], type(line["exc_info"])) == ("background task failed", "error", KeyError)


async def test_a_failure_that_no_caller_waits_for_is_not_reported_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    tasks, work = Tasks(), Work()
    failing = tasks.start(work.fail())
    work.may_end.set()
    await asyncio.wait([failing])
    del failing
    gc.collect()
    assert caplog.records == []
