"""A fake clock, so that a test decides what time it is."""

from __future__ import annotations


class FakeClock:
    """A clock that stands still until a test sets ``now``, in seconds."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
