"""TLS handshakes, within bounds.

A handshake holds about 100 KiB from its first byte to its end, and costs more time than many calls. One that is honest
takes milliseconds; that of an attacker never ends. So where there are too many the oldest one makes room, and honest
callers come through beside an attack; and one is begun in each turn of the event loop, so that calls are answered, and
what those held that were ended is freed, in between.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpc_http2.server.opening import Opening


class Handshakes:
    """The handshakes of one server.

    Args:
        most: handshakes under way at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        # In order, and each is found at once.
        self._waiting: dict[Opening, None] = {}
        self._under_way: dict[Opening, None] = {}
        self._next: asyncio.Handle | None = None

    def begin(self, opening: Opening) -> None:
        """Begin the handshake of a caller that has said something, when it is its turn."""
        self._waiting[opening] = None
        if self._next is None:
            self._next = self._loop.call_soon(self._begin_next)

    def end(self, opening: Opening) -> None:
        """Take in that a handshake is over, or will not begin. Again, or of one that has none, does nothing."""
        self._waiting.pop(opening, None)
        self._under_way.pop(opening, None)

    def _begin_next(self) -> None:
        self._next = None
        if not self._waiting:
            # The one that waited has been ended.
            return
        opening = next(iter(self._waiting))
        del self._waiting[opening]
        if len(self._under_way) >= self._most:
            oldest = next(iter(self._under_way))
            del self._under_way[oldest]
            oldest.abort()
        self._under_way[opening] = None
        opening.introduce()
        if self._waiting:
            self._next = self._loop.call_soon(self._begin_next)
