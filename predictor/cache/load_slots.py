"""Slots for loads: quick ones, and a few slow ones in addition, so that a slow load holds up only slow loads.

A load begins in a quick slot, and moves aside to a slow one when it takes long. The versions of one name share at most
half of the slots of either kind, if there is more than one slot.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from serving.domain.model_id import ModelId


class _Lane:
    """Slots that are granted in the order of the requests, among names that do not have their share yet."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._share = max(1, slots // 2)
        self._held: Counter[ModelId] = Counter()
        self._waiting: dict[Callable[[], None], ModelId] = {}

    def request(self, name: ModelId, granted: Callable[[], None]) -> None:
        """Call ``granted`` once a slot is free, perhaps at once."""
        self._waiting[granted] = name
        self._grant()

    def withdraw(self, granted: Callable[[], None]) -> None:
        """End a request; a request that was granted, or already withdrawn, is no longer there."""
        self._waiting.pop(granted, None)

    def release(self, name: ModelId) -> None:
        """Free a slot of the name."""
        self._free += 1
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]
        self._grant()

    def _grant(self) -> None:
        for granted, name in list(self._waiting.items()):
            if not self._free:
                return
            if self._held[name] < self._share:
                del self._waiting[granted]
                self._free -= 1
                self._held[name] += 1
                granted()


class LoadSlot:
    """A slot that a load has."""

    def __init__(self, quick: _Lane, slow: _Lane, name: ModelId) -> None:
        self._quick = quick
        self._slow = slow
        self._name = name
        self.is_slow = False
        """Whether the slot is a slow one. May be read in any thread."""
        self._aside: asyncio.TimerHandle | None = None

    def move_aside_after(self, seconds: float) -> None:
        """Move to a slow slot after this time, as soon as one is free."""
        loop = asyncio.get_running_loop()
        self._aside = loop.call_later(seconds, self._slow.request, self._name, self._moved)

    def release(self) -> None:
        """Free the slot."""
        if self._aside is not None:
            self._aside.cancel()
        self._slow.withdraw(self._moved)
        (self._slow if self.is_slow else self._quick).release(self._name)

    def _moved(self) -> None:
        self.is_slow = True
        self._quick.release(self._name)


class LoadSlots:
    """All slots of a predictor. Belongs to one event loop.

    Args:
        quick: number of quick slots.
        slow: number of slow slots.
        aside_seconds: time after which a load moves aside, in seconds.
    """

    def __init__(self, *, quick: int, slow: int, aside_seconds: float) -> None:
        self._quick = _Lane(quick)
        self._slow = _Lane(slow)
        self._aside_seconds = aside_seconds

    @asynccontextmanager
    async def quick(self, name: ModelId) -> AsyncIterator[LoadSlot]:
        """Wait for a quick slot, and yield it. It becomes a slow one if the block takes long."""
        slot = LoadSlot(self._quick, self._slow, name)
        await _granted(self._quick, name)
        try:
            slot.move_aside_after(self._aside_seconds)
            yield slot
        finally:
            slot.release()

    @asynccontextmanager
    async def slow(self, name: ModelId) -> AsyncIterator[LoadSlot]:
        """Wait for a slow slot, and yield it."""
        slot = LoadSlot(self._quick, self._slow, name)
        await _granted(self._slow, name)
        slot.is_slow = True
        try:
            yield slot
        finally:
            slot.release()


async def _granted(lane: _Lane, name: ModelId) -> None:
    """Return once a slot of the lane was granted."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    is_granted = False

    def granted() -> None:
        nonlocal is_granted
        is_granted = True
        if not future.done():
            future.set_result(None)

    lane.request(name, granted)
    try:
        await future
    except asyncio.CancelledError:
        lane.withdraw(granted)
        if is_granted:
            lane.release(name)
        raise
