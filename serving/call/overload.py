"""Refusals of work for which there is not enough capacity or time."""

from __future__ import annotations

from typing import Final

from serving.domain.errors import Overloaded

_SOONEST_AGAIN_SECONDS: Final = 0.05
_FULL_AGAIN_SECONDS: Final = 1.0


def no_room(reason: str) -> Overloaded:
    """Return the refusal of work for which there is no capacity, with ``reason`` for the caller."""
    return Overloaded(f"{reason}; try again shortly", _FULL_AGAIN_SECONDS)


def no_time(service: str, late_seconds: float) -> Overloaded:
    """Return the refusal of work that would end after its deadline.

    Args:
        service: the service that is overloaded, in words for the caller.
        late_seconds: the expected time between the deadline and the end of the work, in seconds.
    """
    return Overloaded(
        f"{service} is overloaded, and cannot answer before the deadline; try again later",
        max(late_seconds, _SOONEST_AGAIN_SECONDS),
    )
