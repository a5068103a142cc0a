"""The slot of a call, released while the call waits for something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.call.call import call_if_any


@contextmanager
def released_slot() -> Iterator[None]:
    """Release the slot of the current call within the block.

    For waits that have a bound of their own and use no processor time, such as the wait for a model to be loaded:
    waiting calls must not take the slots of calls that could be answered. Outside a call, the block does nothing.
    """
    call = call_if_any()
    slot = None if call is None else call.notes.slot
    if call is None or slot is None:
        yield
        return
    notes = call.notes
    # Several parts of a batch may have released the slot at the same time.
    notes.releases += 1
    notes.was_released = True
    if notes.releases == 1:
        slot.give_back()
    try:
        yield
    finally:
        notes.releases -= 1
        if not notes.releases:
            slot.take_back()
