"""Stepping aside: a call that waits for something else lets another one have its place meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.call.call import call_if_any


@contextmanager
def released_slot() -> Iterator[None]:
    """Hold no place of the service in this block.

    For waits that have a bound of their own and cost nobody anything, as that for a model to be loaded: those who wait
    must not take the places of those who could be answered. Outside of a call it does nothing.
    """
    call = call_if_any()
    slot = None if call is None else call.notes.slot
    if call is None or slot is None:
        yield
        return
    notes = call.notes
    # Parts of a batch may be aside at the same time.
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
