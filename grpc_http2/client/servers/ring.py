"""Consistent hashing: assignment of keys to servers."""

from __future__ import annotations

import functools
import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

PLACES: Final = 1024
"""Number of points of each server on the ring. The number does not depend on the number of servers, so that a server
that joins or leaves moves only its own share of the keys."""

_WORDS: Final = struct.Struct("<8Q")


class Ring:
    """Distributes keys over servers, evenly to about 1 / sqrt(PLACES).

    Args:
        servers: names of the servers. The ring depends on them alone, so that every process builds the same ring.
    """

    def __init__(self, servers: Sequence[str]) -> None:
        places = sorted((place, server) for server in set(servers) for place in _places_of(server))
        self._places = [place for place, _ in places]
        self._owners = [server for _, server in places]
        self._count = len(set(servers))

    def owners(self, key: str) -> Iterator[str]:
        """Return the servers for ``key``, each once: its owner first, then each stand-in for those before."""
        start = bisect_left(self._places, _place_of(key))
        seen: set[str] = set()
        for index in range(start, start + len(self._owners)):
            owner = self._owners[index % len(self._owners)]
            if owner not in seen:
                seen.add(owner)
                yield owner
                if len(seen) == self._count:
                    return


# Cached because a server that stays, or returns, keeps its points.
@functools.lru_cache(maxsize=256)
def _places_of(server: str) -> Sequence[int]:
    digests = (blake2b(f"{server}#{block}".encode()).digest() for block in range(PLACES // 8))
    return [place for digest in digests for place in _WORDS.unpack(digest)]


def _place_of(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
