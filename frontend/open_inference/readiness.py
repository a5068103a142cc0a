"""Readiness of the frontend, for callers that query it through the protocol instead of the health check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Readiness:
    """Record of whether ``get_ready`` has returned.

    Args:
        get_ready: returns once the frontend can answer.
    """

    def __init__(self, get_ready: Callable[[], Awaitable[None]]) -> None:
        self._get_ready = get_ready
        self._ready = False

    async def get_ready(self) -> None:
        """Return once the frontend can answer."""
        await self._get_ready()
        self._ready = True

    def end(self) -> None:
        """Report not ready from now on: the frontend is about to refuse calls."""
        self._ready = False

    def is_ready(self) -> bool:
        """Return whether the frontend can answer."""
        return self._ready
