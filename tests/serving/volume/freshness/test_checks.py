from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence

import pytest

from serving.domain.model_id import ModelId
from serving.volume.freshness.checks import FreshnessChecks
from tests.builders import PATIENCE


async def test_every_subject_is_looked_at_once_however_often_it_is_wanted() -> None:
    asked: list[ModelId] = []
    found: dict[str, bool] = {}
    done = asyncio.Event()

    async def odd(known: Sequence[tuple[ModelId, int]]) -> Sequence[bool]:
        asked.extend(model_id for model_id, _ in known)
        return [number % 2 == 1 for _, number in known]

    def on_looked(subject: str, /, *, changed: bool) -> None:
        found[subject] = changed
        if len(found) == 200:
            done.set()

    looks: FreshnessChecks[str, int] = FreshnessChecks(odd, on_looked, 30.0)
    for _ in range(3):
        for number in range(200):
            looks.look(str(number), ModelId(str(number)), number)
    await asyncio.wait_for(done.wait(), PATIENCE)
    await looks.close()
    assert len(asked) == 200
    assert found == {str(number): number % 2 == 1 for number in range(200)}


async def hangs(_: Sequence[tuple[ModelId, bool]]) -> Sequence[bool]:
    await asyncio.Event().wait()
    raise AssertionError


async def as_known(known: Sequence[tuple[ModelId, bool]]) -> Sequence[bool]:
    return [changed for _, changed in known]


async def test_after_one_look_another_can_be_had() -> None:
    done: asyncio.Queue[bool] = asyncio.Queue()
    looks: FreshnessChecks[str, bool] = FreshnessChecks(as_known, lambda _, changed: done.put_nowait(changed), 30.0)
    for known in (True, False, True):
        looks.look("a", ModelId("a"), known)
        assert await asyncio.wait_for(done.get(), PATIENCE) is known
    await looks.close()


async def test_who_waits_for_a_look_hears_what_it_found() -> None:
    looks: FreshnessChecks[str, bool] = FreshnessChecks(as_known, lambda _, changed: None, 30.0)
    wanted = [(name, changed) for name in "abcdef" for changed in (name in "ace",)]
    waiting = (looks.looked(name, ModelId(name), changed, PATIENCE) for name, changed in wanted * 2)
    assert await asyncio.gather(*waiting) == [changed for _, changed in wanted * 2]
    await looks.close()


async def test_who_waits_for_a_volume_that_hangs_goes_on_without_it() -> None:
    looks: FreshnessChecks[str, bool] = FreshnessChecks(hangs, lambda _, changed: None, 30.0)
    assert await looks.looked("a", ModelId("a"), True, 0.01) is None
    await looks.close()


async def test_one_that_hangs_is_left_and_others_are_looked_at() -> None:
    found: asyncio.Queue[str] = asyncio.Queue()

    async def one_hangs(known: Sequence[tuple[ModelId, bool]]) -> Sequence[bool]:
        if ModelId("hangs") in [model_id for model_id, _ in known]:
            raise TimeoutError
        return [False for _ in known]

    looks: FreshnessChecks[str, bool] = FreshnessChecks(
        one_hangs, lambda subject, changed: found.put_nowait(subject), 30.0
    )
    assert await looks.looked("hangs", ModelId("hangs"), True, PATIENCE) is None
    looks.look("other", ModelId("other"), True)
    assert await asyncio.wait_for(found.get(), PATIENCE) == "other"
    assert await looks.looked("hangs", ModelId("hangs"), True, PATIENCE) is None
    await looks.close()


async def test_those_who_left_while_a_volume_hangs_leave_nothing_behind() -> None:
    looks: FreshnessChecks[str, bool] = FreshnessChecks(hangs, lambda _, changed: None, 30.0)
    assert await looks.looked("a", ModelId("a"), True, 0.0) is None
    gc.collect()
    before = sum(issubclass(type(each), asyncio.Future) for each in gc.get_objects())
    for _ in range(100):
        assert await looks.looked("a", ModelId("a"), True, 0.0) is None
    gc.collect()
    after = sum(issubclass(type(each), asyncio.Future) for each in gc.get_objects())
    assert after - before < 10
    await looks.close()


@pytest.mark.parametrize(("age", "serves", "looks"), [(0.0, True, 0), (31.0, True, 1), (61.0, False, 0)])
async def test_a_look_that_is_due_is_taken_in_the_background_and_one_that_is_overdue_comes_first(
    age: float, serves: bool, looks: int
) -> None:
    asked: list[ModelId] = []

    async def unchanged(known: Sequence[tuple[ModelId, int]]) -> Sequence[bool]:
        asked.extend(model_id for model_id, _ in known)
        return [False for _ in known]

    taken: FreshnessChecks[str, int] = FreshnessChecks(unchanged, lambda _, changed: None, 30.0)
    assert taken.may_serve("a", ModelId("a"), 1, time.monotonic() - age) is serves
    await settled()
    await taken.close()
    assert len(asked) == looks


async def settled() -> None:
    """Wait until this task is the only one left."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
