from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from serving.call.load_slots import LoadSlot, LoadSlots, SlotBounds
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
    return LoadSlots(quick, SlotBounds(slow=slow, aside_seconds=aside_seconds, hang_seconds=NEVER))


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
            await asyncio.wait_for(stack.enter_async_context(slots.quick(name)), PATIENCE)
            await asyncio.wait_for(stack.enter_async_context(slots.slow(name)), PATIENCE)


async def test_a_name_whose_slow_slots_are_in_use_leaves_the_quick_ones_to_others() -> None:
    slots = slots_of(quick=1, slow=4)
    slow = [Load(slots, A, slow=True) for _ in range(2)]
    same, other = Load(slots, A), Load(slots, B)
    assert await begun(*slow, same, other) == [True, True, False, True]
    await other.end()
    assert await begun(same) == [False]
    await slow[0].end()
    assert await begun(same) == [True]
    for load in (slow[1], same):
        await load.end()


async def test_a_quiet_load_gives_its_slot_up_to_another_one_and_a_load_with_a_sign_of_life_does_not() -> None:
    slots = LoadSlots(1, SlotBounds(slow=1, aside_seconds=NEVER, hang_seconds=0.2, most_given_up=1))
    quiet = Load(slots, A, slow=True)
    await quiet.begun()
    await asyncio.sleep(0.25)
    assert quiet.slot is not None
    assert not quiet.slot.is_given_up, "it is in nobody's way"
    second = Load(slots, B, slow=True)
    await second.begun()
    given_up = [load.slot.is_given_up for load in (quiet, second) if load.slot is not None]
    assert given_up == [True, False]
    third = Load(slots, C, slow=True)
    assert second.slot is not None
    await asyncio.sleep(0.25)
    assert not third.runs, "no further one may go on without a slot"
    await quiet.end()
    fourth = Load(slots, A, slow=True)
    second.slot.sign_of_life()
    assert await begun(third) == [False]
    await third.begun()
    assert second.slot.is_given_up
    await second.end()
    await third.end()
    await fourth.begun()
    await fourth.end()
