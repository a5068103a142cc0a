from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from predictor.cache.load_slots import LoadSlot, LoadSlots
from serving.domain.model_id import ModelId
from tests.builders import PATIENCE, a_turn

A, B, C = ModelId("a"), ModelId("b"), ModelId("c")
NEVER = 1e6


class Load:
    """A load that is under way until it is ended."""

    def __init__(self, slots: LoadSlots, name: ModelId, *, slow: bool = False) -> None:
        self.slot: LoadSlot | None = None
        self._begun = asyncio.Event()
        self._end = asyncio.Event()
        self.task = asyncio.create_task(self._run(slots, name, slow))

    async def _run(self, slots: LoadSlots, name: ModelId, slow: bool) -> None:
        async with slots.slow(name) if slow else slots.quick(name) as slot:
            self.slot = slot
            self._begun.set()
            await self._end.wait()

    @property
    def runs(self) -> bool:
        return self.slot is not None and not self.task.done()

    async def begun(self) -> None:
        """Wait until the load has its slot."""
        await asyncio.wait_for(self._begun.wait(), PATIENCE)

    async def end(self) -> None:
        self._end.set()
        await asyncio.wait_for(self.task, PATIENCE)
        await a_turn()


def slots_of(*, quick: int = 1, slow: int = 1, aside_seconds: float = NEVER) -> LoadSlots:
    return LoadSlots(quick=quick, slow=slow, aside_seconds=aside_seconds)


async def begun(*loads: Load) -> list[bool]:
    for _ in range(3):
        await a_turn()
    return [load.runs for load in loads]


async def test_loads_get_slots_in_the_order_in_which_they_ask() -> None:
    slots = slots_of()
    loads = [Load(slots, name) for name in (A, B, C)]
    assert await begun(*loads) == [True, False, False]
    await loads[0].end()
    assert await begun(*loads) == [False, True, False]
    await loads[1].end()
    assert await begun(*loads) == [False, False, True]
    await loads[2].end()


async def test_the_versions_of_one_name_leave_half_of_the_slots_to_others() -> None:
    slots = slots_of(quick=4)
    many = [Load(slots, A) for _ in range(10)]
    other = Load(slots, B)
    assert await begun(*many, other) == [True, True, *[False] * 8, True]
    await many[0].end()
    assert await begun(many[2]) == [True]
    for load in (*many[1:], other):
        await load.end()


async def test_a_slow_load_moves_aside_and_lets_the_next_one_in() -> None:
    slots = slots_of(aside_seconds=0.001)
    slow, other = Load(slots, A), Load(slots, B)
    await other.begun()
    assert slow.slot is not None
    assert slow.slot.is_slow
    assert slow.runs
    await slow.end()
    await other.end()
    fresh = slots_of()
    again = Load(fresh, C)
    assert await begun(again) == [True]
    await again.end()


async def test_a_load_moves_aside_only_where_a_slow_slot_is_free() -> None:
    slots = slots_of(aside_seconds=0.001)
    first = Load(slots, A, slow=True)
    second, third = Load(slots, B), Load(slots, C)
    await asyncio.sleep(0.05)
    assert [second.runs, third.runs] == [True, False]
    await first.end()
    await third.begun()
    await second.end()
    await third.end()


@pytest.mark.parametrize("lane", ["quick", "slow"])
async def test_every_slot_is_free_again_after_loads_that_were_cancelled_at_any_moment(lane: str) -> None:
    slots = slots_of(quick=2, slow=2, aside_seconds=0.001)
    for turns in range(6):
        loads = [Load(slots, name, slow=lane == "slow") for name in (A, B, C)]
        for _ in range(turns):
            await a_turn()
        for load in loads:
            load.task.cancel()
        await asyncio.wait([load.task for load in loads], timeout=PATIENCE)
    async with AsyncExitStack() as stack:
        for name in (A, B):
            await asyncio.wait_for(stack.enter_async_context(slots.slow(name)), PATIENCE)
            await asyncio.wait_for(stack.enter_async_context(slots.quick(name)), PATIENCE)
