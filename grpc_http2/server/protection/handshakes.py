"""TLS handshakes, within limits.

A handshake holds about 100 KiB from its first byte to its end, and costs more time than many calls. A legitimate
handshake takes milliseconds; that of an attacker never ends. When there are too many, the oldest one is therefore
ended, so that legitimate callers get through during an attack. One handshake is started in each turn of the event loop,
so that in between, calls are answered and the memory of ended handshakes is freed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpc_http2.server.opening import Opening


class Handshakes:
    """TLS handshakes of one server.

    Args:
        most: maximum number of concurrent handshakes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop = asyncio.get_running_loop()
        # Dictionaries keep the order, and find an entry at once.
        self._waiting: dict[Opening, None] = {}
        self._under_way: dict[Opening, None] = {}
        self._next: asyncio.Handle | None = None

    def begin(self, opening: Opening) -> None:
        """Queue the handshake of a caller that has sent its first bytes."""
        self._waiting[opening] = None
        if self._next is None:
            self._next = self._loop.call_soon(self._begin_next)

    def end(self, opening: Opening) -> None:
        """Remove a handshake that is over or will not begin. Has no effect if repeated, or without a handshake."""
        self._waiting.pop(opening, None)
        self._under_way.pop(opening, None)

    def _begin_next(self) -> None:
        self._next = None
        if not self._waiting:
            # The waiting handshake has been ended.
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
