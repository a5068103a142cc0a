"""Slots for loads: quick ones, and slow ones in addition, so that slow loads hold up no others.

A load begins in a quick slot, and moves aside to a slow one when it takes long. The versions of one name share at most
half of the slots of either kind, if there is more than one slot; a name whose share of the slow slots is in use gets no
quick slot, because its loads could not move aside.

A load that makes no progress may hang in the volume. If another load needs its slot, it gives the slot up, and goes on
without one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from serving.domain.model_id import ModelId


@dataclass(frozen=True, slots=True)
class SlotBounds:
    """Number of slow slots, and the times that decide who has one."""

    slow: int = 16
    """Number of slow slots, in addition to the quick ones."""
    aside_seconds: float = 0.5
    """Time after which a load counts as slow, and moves aside if a slow slot is free, in seconds."""
    hang_seconds: float = 10.0
    """Time without progress after which a slow load gives its slot up if others need it, in seconds."""
    most_given_up: int = 64
    """Maximum number of loads that go on without a slot."""


BOUNDS: Final = SlotBounds()


def _always() -> bool:
    return True


def _do_nothing() -> None:
    """Do nothing about a slot that was given up."""


class _Lane:
    """Slots that are granted in the order of the requests, among names that do not have their share yet.

    Args:
        slots: number of slots.
        may_have: returns whether a name may have a slot now, whatever its share.
    """

    def __init__(self, slots: int, may_have: Callable[[ModelId], bool] = lambda _: True) -> None:
        self._free = slots
        self._share = max(1, slots // 2)
        self._may_have = may_have
        self._held: Counter[ModelId] = Counter()
        self._waiting: dict[Callable[[], None], ModelId] = {}

    @property
    def is_full(self) -> bool:
        return not self._free

    @property
    def names_waiting(self) -> Iterable[ModelId]:
        return self._waiting.values()

    def has_its_share(self, name: ModelId) -> bool:
        return self._held[name] >= self._share

    def request(self, name: ModelId, granted: Callable[[], None]) -> None:
        """Call ``granted`` once a slot is free, perhaps at once."""
        self._waiting[granted] = name
        self.grant()

    def withdraw(self, granted: Callable[[], None]) -> None:
        """End a request; a request that was granted, or already withdrawn, is no longer there."""
        self._waiting.pop(granted, None)

    def release(self, name: ModelId) -> None:
        """Free a slot of the name."""
        self._free += 1
        self._held[name] -= 1
        if not self._held[name]:
            del self._held[name]
        self.grant()

    def grant(self) -> None:
        """Grant the slots that are free."""
        for granted, name in list(self._waiting.items()):
            if not self._free:
                return
            # A slot that was granted may have been used, and requests withdrawn, by what the grant has called.
            if granted in self._waiting and not self.has_its_share(name) and self._may_have(name):
                del self._waiting[granted]
                self._free -= 1
                self._held[name] += 1
                granted()


class LoadSlot:
    """A slot that a load has. Belongs to one event loop."""

    def __init__(self, slots: LoadSlots, name: ModelId) -> None:
        self._slots = slots
        self.name = name
        self.is_slow = False
        """Whether the slot is a slow one. May be read in any thread."""
        self.takes_spare = False
        """Whether the load is the one slow load that takes the memory that is kept for it."""
        self.is_given_up = False
        """Whether the load goes on without a slot."""
        self.may_move: Callable[[], bool] = _always
        """Returns whether the load may become a slow one now. If not, it stays where it is."""
        self.on_given_up: Callable[[], None] = _do_nothing
        """Called when the slot is given up."""
        self._alive_at = time.monotonic()

    @property
    def quiet_seconds(self) -> float:
        """Time since the load last made progress, in seconds."""
        return time.monotonic() - self._alive_at

    def sign_of_life(self) -> None:
        """Record that the load makes progress. May be called in any thread."""
        self._alive_at = time.monotonic()

    def moved(self) -> None:
        """Take the slow slot that was granted, instead of the quick one."""
        self._slots.move(self)


class LoadSlots:
    """All slots of a predictor. Belongs to one event loop.

    Args:
        quick: number of quick slots.
        bounds: number of slow slots, and times.
    """

    def __init__(self, quick: int, bounds: SlotBounds = BOUNDS) -> None:
        self._bounds = bounds
        self._slow = _Lane(bounds.slow)
        self._quick = _Lane(quick, lambda name: not self._slow.has_its_share(name))
        self._given_up = 0
        self._aside: set[LoadSlot] = set()
        """The slow slots in use."""
        self._watch: asyncio.TimerHandle | None = None

    @property
    def has_spare(self) -> bool:
        """Whether the next slow load takes the memory that is kept for one."""
        return not any(slot.takes_spare for slot in self._aside)

    @asynccontextmanager
    async def quick(self, name: ModelId) -> AsyncIterator[LoadSlot]:
        """Wait for a quick slot, and yield it. It becomes a slow one if the block takes long."""
        slot = LoadSlot(self, name)
        await self._granted(self._quick, name)
        loop = asyncio.get_running_loop()
        aside = loop.call_later(self._bounds.aside_seconds, self._request_aside, slot)
        try:
            slot.sign_of_life()
            yield slot
        finally:
            aside.cancel()
            self._slow.withdraw(slot.moved)
            self._release(slot)

    @asynccontextmanager
    async def slow(self, name: ModelId) -> AsyncIterator[LoadSlot]:
        """Wait for a slow slot, and yield it."""
        slot = LoadSlot(self, name)
        await self._granted(self._slow, name)
        try:
            self._become_slow(slot)
            yield slot
        finally:
            self._release(slot)

    def move(self, slot: LoadSlot) -> None:
        """Move a load to the slow slot that was granted to it."""
        if not slot.may_move():
            self._slow.release(slot.name)
            return
        self._become_slow(slot)
        self._quick.release(slot.name)

    def _request_aside(self, slot: LoadSlot) -> None:
        self._slow.request(slot.name, slot.moved)
        self._look()

    def _become_slow(self, slot: LoadSlot) -> None:
        slot.takes_spare = self.has_spare
        slot.is_slow = True
        slot.sign_of_life()
        self._aside.add(slot)

    def _release(self, slot: LoadSlot) -> None:
        if slot.is_given_up:
            self._given_up -= 1
        elif slot.is_slow:
            self._free_slow(slot)
        else:
            self._quick.release(slot.name)

    def _free_slow(self, slot: LoadSlot) -> None:
        self._aside.discard(slot)
        self._slow.release(slot.name)
        # The name may have less than its share of the slow slots now.
        self._quick.grant()

    async def _granted(self, lane: _Lane, name: ModelId) -> None:
        """Return once a slot of the lane was granted."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        is_granted = False

        def granted() -> None:
            nonlocal is_granted
            is_granted = True
            if not future.done():
                future.set_result(None)

        lane.request(name, granted)
        self._look()
        try:
            await future
        except asyncio.CancelledError:
            lane.withdraw(granted)
            if is_granted:
                lane.release(name)
                self._quick.grant()
            raise

    def _look(self) -> None:
        """Let loads that hang give up the slots that others wait for, now or when they have hung for long enough."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        while self._given_up < self._bounds.most_given_up:
            in_the_way = [slot for slot in self._aside if self._is_in_the_way(slot)]
            if not in_the_way:
                return
            slot = max(in_the_way, key=lambda slot: slot.quiet_seconds)
            seconds = self._bounds.hang_seconds - slot.quiet_seconds
            if seconds > 0:
                self._watch = asyncio.get_running_loop().call_later(seconds, self._look)
                return
            self._give_up(slot)

    def _is_in_the_way(self, slot: LoadSlot) -> bool:
        waiting = (*self._slow.names_waiting, *self._quick.names_waiting)
        if self._slow.has_its_share(slot.name) and slot.name in waiting:
            return True
        return self._slow.is_full and bool(self._slow.names_waiting)

    def _give_up(self, slot: LoadSlot) -> None:
        self._given_up += 1
        slot.is_given_up = True
        slot.takes_spare = False
        slot.on_given_up()
        self._free_slow(slot)
