"""The replicas behind the name of an engine, and a channel to all of them.

Names are resolved again while they are used. When the addresses of a name change, replicas that stay keep their
connections and their models, and calls to replicas that left end there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import structlog

from grpc_http2.client.channel import Channel
from grpc_http2.client.servers.addresses import addresses_in
from serving.call.closing import close_in_order
from serving.call.tasks import Tasks, joined
from serving.domain.errors import Unavailable

log = structlog.get_logger()

Stub = TypeVar("Stub")

LookUp: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host name with a port, each as ``ip:port``. Raises OSError, UnicodeError."""

IsStale: TypeAlias = Callable[[], Awaitable[bool]]
"""Returns whether the certificates of connections have changed."""

FRESH_SECONDS: Final = 5.0
"""Shortest time between two lookups of a name, in seconds."""


class Name(NamedTuple):
    """A host name that may have several replicas."""

    host: str
    port: int


def name_in(target: str) -> Name | None:
    """Return the name in ``target``; ``None`` if ``target`` is written as addresses."""
    if target.startswith(("ipv4:", "ipv6:")):
        return None
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return Name(host, int(port))
    return None


def may_be_several(target: str) -> bool:
    """Return whether ``target`` can have several replicas: it is a name, or a list of addresses."""
    return name_in(target) is not None or len(addresses_in(target)) > 1


async def look_up(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host from the system's resolver: those of IPv4, or else those of IPv6.

    With both, a replica would appear twice.

    Raises:
        OSError: the host has no address.
        UnicodeError: ``host`` is not a valid name.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    four = [place for family, *_, place in found if family == socket.AF_INET]
    return [f"{ip}:{port}" for ip, *_ in four] or [f"[{place[0]}]:{port}" for *_, place in found]


class Replicas(Generic[Stub]):
    """Provides the stub of a channel to all replicas of a target, and keeps the channel's addresses up to date.

    A name is looked up when a stub is asked for, at most once in ``fresh_seconds``. Only the first callers wait.

    Args:
        target: in gRPC's syntax: ``host:port``, ``dns:///name:port``, ``ipv4:address:port,…``.
        channel: makes a channel to addresses.
        stub_of: makes the stub of a channel.
        look_up: resolves a name.
        is_stale: returns whether new connections must replace the present ones; called with each lookup.
        fresh_seconds: shortest time between two lookups, in seconds.
    """

    def __init__(
        self,
        target: str,
        channel: Callable[[Sequence[str]], Channel],
        stub_of: Callable[[Channel], Stub],
        look_up: LookUp = look_up,
        is_stale: IsStale | None = None,
        *,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._name = name_in(target)
        self._look_up = look_up
        self._is_stale = is_stale
        self._is_fixed = self._name is None and is_stale is None
        self._fresh_seconds = fresh_seconds
        self._refreshed_at = -math.inf
        self._tasks = Tasks()
        self._refresh: asyncio.Task[None] | None = None
        """The refresh under way."""
        self._addresses: Sequence[str] = () if self._name is not None else addresses_in(target)
        self._channel = channel(self._addresses)
        self._stub = stub_of(self._channel)

    def stub_at_hand(self) -> Stub | None:
        """Return the stub if a call can begin at once; ``None`` if :meth:`stub` has to be awaited."""
        self._refresh_if_due()
        return self._stub if self._addresses else None

    async def stub(self) -> Stub:
        """Return the stub for a call, which must begin before anything else is awaited.

        Raises:
            Unavailable: the name has no address.
        """
        self._refresh_if_due()
        if not self._addresses and self._refresh is not None:
            await joined(self._refresh)
        if not self._addresses:
            raise Unavailable("the engine's name does not resolve to an address at the moment; try again")
        return self._stub

    async def addresses(self) -> Sequence[str]:
        """Return the addresses of all replicas, including replicas that get no calls at the moment.

        Raises:
            Unavailable: the name has no address.
        """
        await self.stub()
        return self._addresses

    def address_for(self, affinity: str) -> str | None:
        """Return the address of the replica for calls of ``affinity``; ``None`` if no replica can be used."""
        return self._channel.address_for(affinity)

    async def close(self) -> None:
        """Close the channel."""
        await close_in_order(self._tasks.close, self._channel.close)

    def _refresh_if_due(self) -> None:
        if self._is_fixed or self._refresh is not None:
            return
        if time.monotonic() - self._refreshed_at > self._fresh_seconds:
            self._refresh = self._tasks.start(self._refreshed())

    async def _refreshed(self) -> None:
        try:
            if self._is_stale is not None and await self._is_stale():
                log.info("new connections replace the old ones")
                self._channel.renew()
            addresses = self._addresses if self._name is None else await self._found(self._name)
            if addresses and addresses != self._addresses:
                log.info("name resolves to other addresses", addresses=len(addresses))
                self._addresses = addresses
                self._channel.set_addresses(addresses)
        finally:
            self._refreshed_at = time.monotonic()
            self._refresh = None

    async def _found(self, name: Name) -> Sequence[str]:
        try:
            return sorted(set(await self._look_up(*name)))
        except (OSError, UnicodeError) as error:
            # The known replicas may still be there.
            log.warning("name does not resolve", name=name.host, reason=str(error))
            return self._addresses
