"""Who stands behind the name of an engine now, and a channel to all of them.

gRPC can look names up by itself, but then its ring has the same size however many replicas there are: where one leaves,
the others take places from each other too, and nearly half of the models move instead of a third. So names are looked
up here, and where others stand behind one, a new channel takes over, with as many places on its ring for each replica
as before. The share of the one that left moves, and nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import grpc
import structlog

from serving.errors import Unavailable

log = structlog.get_logger()

Stub = TypeVar("Stub")

LookUp: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses behind a host name and a port, each as ``ip:port``. Raises OSError, UnicodeError."""

IsStale: TypeAlias = Callable[[], Awaitable[bool]]
"""Tells whether what channels are made with has changed."""

FRESH_SECONDS: Final = 5.0
"""A name is looked up at most once in this time."""
# Longer than any caller waits who has not said how long.
_GRACE_SECONDS: Final = 60.0


class Name(NamedTuple):
    """A host name that may stand for several replicas."""

    host: str
    port: int


def name_in(target: str) -> Name | None:
    """Return the name that ``target`` is; ``None`` where it is written as addresses."""
    if target.startswith(("ipv4:", "ipv6:")):
        return None
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return Name(host, int(port))
    return None


def addresses_in(target: str) -> Sequence[str]:
    """Return the addresses that ``target`` lists."""
    return target.removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:///").split(",")


def may_be_several(target: str) -> bool:
    """Return whether ``target`` can stand for several replicas: a name, or a list of addresses."""
    return name_in(target) is not None or len(addresses_in(target)) > 1


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host as the system's resolver knows them: of IPv4, or of IPv6 where it has no others.

    A replica with both would be there twice.

    Raises:
        OSError: there are none.
        UnicodeError: it is no name.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    four = [place for family, *_, place in found if family == socket.AF_INET]
    return [f"{ip}:{port}" for ip, *_ in four] or [f"[{place[0]}]:{port}" for *_, place in found]


class _Connection(NamedTuple, Generic[Stub]):
    channel: grpc.aio.Channel
    stub: Stub


class Replicas(Generic[Stub]):
    """Gives the stub of a channel to all replicas behind a target.

    A name is looked up when it is asked for, at most once in five seconds, and nobody waits but the first.

    Args:
        target: as gRPC writes it: ``host:port``, ``dns:///name:port``, ``ipv4:address:port,…``.
        connect: makes a channel to addresses.
        stub_of: makes the stub of a channel.
        look_up: looks a name up.
        is_stale: tells, asked when names are looked up, whether a new channel must take over in any case.
    """

    def __init__(
        self,
        target: str,
        connect: Callable[[Sequence[str]], grpc.aio.Channel],
        stub_of: Callable[[grpc.aio.Channel], Stub],
        look_up: LookUp = look_up,
        is_stale: IsStale | None = None,
    ) -> None:
        self._name = name_in(target)
        self._connect = connect
        self._stub_of = stub_of
        self._look_up = look_up
        self._is_stale = is_stale
        self._is_fixed = self._name is None and is_stale is None
        self._looked_at = -math.inf
        self._looking: asyncio.Task[None] | None = None
        self._addresses: Sequence[str] = ()
        self._current: _Connection[Stub] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        if self._name is None:
            self._take(addresses_in(target))

    async def stub(self) -> Stub:
        """Return the stub for the next call, which begins before anything else is awaited.

        Raises:
            Unavailable: the name stands for nobody.
        """
        if not self._is_fixed and self._looking is None and time.monotonic() - self._looked_at > FRESH_SECONDS:
            self._looking = asyncio.get_running_loop().create_task(self._look())
        if self._current is None and self._looking is not None:
            # One caller that leaves must not take the answer from the others.
            await asyncio.shield(self._looking)
        if self._current is None:
            raise Unavailable("the engine's name stands for no address at the moment; try again")
        return self._current.stub

    async def close(self) -> None:
        """Close every channel."""
        tasks = [*self._leaving, *([] if self._looking is None else [self._looking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._current is not None:
            await self._current.channel.close()

    async def _look(self) -> None:
        try:
            is_stale = self._is_stale is not None and await self._is_stale()
            addresses = self._addresses if self._name is None else await self._found(self._name)
            if addresses and (is_stale or addresses != self._addresses):
                self._take(addresses)
        finally:
            self._looked_at = time.monotonic()
            self._looking = None

    async def _found(self, name: Name) -> Sequence[str]:
        try:
            return sorted(set(await self._look_up(*name)))
        except (OSError, UnicodeError) as error:
            # Whoever was there may be there still.
            log.warning("name not found", name=name.host, reason=str(error))
            return self._addresses

    def _take(self, addresses: Sequence[str]) -> None:
        former, channel = self._current, self._connect(addresses)
        self._current = _Connection(channel, self._stub_of(channel))
        self._addresses = addresses
        if former is not None:
            log.info("another channel takes over", addresses=len(addresses))
            leaving = asyncio.get_running_loop().create_task(former.channel.close(_GRACE_SECONDS))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
