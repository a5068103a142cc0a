"""Load balancing: selection of the server for each call of a channel."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from grpc import ChannelConnectivity, StatusCode

from grpc_http2.client.calls.stream import Assignable, Failure
from grpc_http2.client.servers.ring import Ring
from grpc_http2.client.servers.subchannel import Subchannel
from grpc_http2.client.settings import ChannelSettings, Tls

_MOST_PICKS: Final = 1 << 16
_FAILED: Final = ChannelConnectivity.TRANSIENT_FAILURE


class Balancer:
    """Assigns each call to a server: the owner of the call's affinity on the ring, or a stand-in for that owner.

    Args:
        settings: limits and timings.
        tls: TLS settings; without them, connections are not encrypted.
        on_change: called when the state of a server has changed.
    """

    def __init__(self, settings: ChannelSettings, tls: Tls | None, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._tls = tls
        self._on_change = on_change
        self._servers: dict[str, Subchannel] = {}
        self._ring = Ring(())
        # Cache that is valid until the state of any server changes.
        self._picks: dict[str, Subchannel] = {}
        self._patient: dict[Assignable, None] = {}
        self._retired: set[Subchannel] = set()
        self._is_used = False

    @property
    def state(self) -> ChannelConnectivity:
        """The best state of any server."""
        states = {server.state for server in self._servers.values()}
        for state in (ChannelConnectivity.READY, ChannelConnectivity.CONNECTING, ChannelConnectivity.IDLE):
            if state in states:
                return state
        return _FAILED

    def set_addresses(self, addresses: Sequence[str]) -> None:
        """Replace the servers that receive calls. Servers that remain keep their connections."""
        self._retired = {server for server in self._retired if not server.is_gone}
        leaving = [server for address, server in self._servers.items() if address not in addresses]
        self._servers = {
            address: self._servers.get(address) or Subchannel(address, self._settings, self._tls, self._changed)
            for address in dict.fromkeys(addresses)
        }
        self._ring = Ring(tuple(self._servers))
        self._picks.clear()
        several = len(self._servers) > 1
        for server in self._servers.values():
            server.keeps_connected = several
            server.watch_health(self._settings.health_service if several else None)
            if several and self._is_used:
                server.connect()
        for server in leaving:
            self._retired.add(server)
            calls = server.taken_back()
            server.retire()
            for call in calls:
                self.assign(call)
        self._on_change()

    def renew(self) -> None:
        """Open a new connection to each server for further calls."""
        for server in self._servers.values():
            server.renew()

    def connect(self) -> None:
        """Connect to each server, as the first call does."""
        self._is_used = True
        for server in list(self._servers.values()):
            server.connect()

    def address_for(self, affinity: str) -> str | None:
        """Return the address that calls of ``affinity`` currently go to; ``None`` if no server is usable."""
        server = self._pick(affinity)
        return None if server is None else server.address

    def assign(self, call: Assignable) -> None:
        """Assign ``call`` to a server, queue it until a server is usable, or fail it."""
        if not self._is_used:
            self._is_used = True
            if len(self._servers) > 1:
                self.connect()
        server = self._pick(call.affinity)
        if server is not None:
            server.take(call)
        elif call.wait_for_ready and len(self._patient) < self._settings.most_waiting:
            self._patient[call] = None
            call.waits_in = self._patient
        else:
            call.attempt_failed(Failure(StatusCode.UNAVAILABLE, self._why()))

    async def close(self) -> None:
        """Close all connections."""
        servers = [*self._servers.values(), *self._retired]
        self._servers, self._retired = {}, set()
        for server in servers:
            await server.close()

    def _pick(self, affinity: str | None) -> Subchannel | None:
        if len(self._servers) == 1:
            (server,) = self._servers.values()
            return None if server.state is _FAILED else server
        if affinity is None:
            usable = [server for server in self._servers.values() if server.state is not _FAILED]
            return random.choice(usable) if usable else None  # noqa: S311 - no secret
        picked = self._picks.get(affinity)
        if picked is None:
            owners = (self._servers[address] for address in self._ring.owners(affinity))
            picked = next((server for server in owners if server.state is not _FAILED), None)
            if picked is not None:
                if len(self._picks) >= _MOST_PICKS:
                    self._picks.clear()
                self._picks[affinity] = picked
        return picked

    def _changed(self, server: Subchannel) -> None:
        self._picks.clear()
        if server.state is _FAILED:
            for call in server.taken_back():
                self.assign(call)
        elif self._patient and self._servers.get(server.address) is server:
            patient, self._patient = self._patient, {}
            for call in patient:
                call.waits_in = None
                self.assign(call)
        self._on_change()

    def _why(self) -> str:
        reasons = {f"{server.address}: {server.reason}" for server in self._servers.values() if server.reason}
        return "no server can be reached; " + "; ".join(sorted(reasons))
