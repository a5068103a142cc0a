"""Connections that one server hands over to another."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.server import Server
from tests.builders import PATIENCE
from tests.end_to_end.transports.certificates import Authority
from tests.grpc_http2.server.peers import ConnectionEnded, peer_of
from tests.grpc_http2.server.service import SERVICE, Service
from tests.grpc_http2.server.test_tls import calling, serving


@dataclass
class Turns:
    """Dealing that keeps every second connection and hands the others over to ``other``."""

    other: Server | None = None
    seen: int = 0
    fewer_counted: int = 0
    keeps_all: bool = False

    def keeps(self, connection: socket.socket) -> bool:
        self.seen += 1
        if self.keeps_all or self.seen % 2 or self.other is None:
            return True
        self.other.adopt(connection.dup())
        connection.close()
        return False

    def fewer(self) -> None:
        self.fewer_counted += 1


@dataclass
class Pair:
    """Two servers, only the first of which accepts connections."""

    port: int
    dealing: Turns
    servers: list[Server] = field(default_factory=list)
    services: list[Service] = field(default_factory=list)

    @property
    def connections(self) -> list[int]:
        return [server.connections for server in self.servers]


@asynccontextmanager
async def pair(tls: Any = None, **limits: Any) -> AsyncIterator[Pair]:
    servers = [Server(ServerLimits(**limits)) for _ in range(2)]
    services = [Service() for _ in range(2)]
    for server, service in zip(servers, services, strict=True):
        server.add_registered_method_handlers(SERVICE, service.handlers())
    dealing = Turns(servers[1])
    port = await servers[0].listen("127.0.0.1", 0, tls=tls, dealing=dealing)
    await servers[1].listen("127.0.0.1", 0, tls=tls, dealing=Turns())
    try:
        yield Pair(port, dealing, servers, services)
    finally:
        for server in servers:
            await server.stop(0)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - no notification is sent
            await asyncio.sleep(0.001)


def open_descriptors() -> list[int]:
    # The descriptor that lists the folder is already closed, so skip it.
    listed = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return [number for number in listed if Path(f"/proc/self/fd/{number}").exists()]


async def test_connections_are_served_where_they_were_dealt_to() -> None:
    async with pair() as it:
        for number in range(6):
            async with peer_of(it.port) as peer:
                assert (await peer.asked(b"x" * 100_000)).message == b"x" * 100_000
                assert it.connections == [1 - number % 2, number % 2]
            await eventually(lambda: it.connections == [0, 0])
        assert [service.calls for service in it.services] == [3, 3]
        assert it.dealing.fewer_counted == 3


async def test_they_are_encrypted_by_whoever_serves_them(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    async with pair(tls=serving(authority.signed("first"))) as it:
        for _ in range(4):
            async with peer_of(it.port, tls=calling(authority, "h2")) as peer:
                assert (await peer.asked(b"x")).message == b"x"
        assert [service.calls for service in it.services] == [2, 2]


async def test_a_certificate_that_is_replaced_is_that_of_connections_to_come(tmp_path: Path) -> None:
    former, new = (Authority(tmp_path, name) for name in ("former", "new"))
    async with pair(tls=serving(former.signed("server"))) as it:
        for server in it.servers:
            await server.replace_tls(serving(new.signed("server")))
        for _ in range(2):
            async with peer_of(it.port, tls=calling(new, "h2")) as peer:
                assert (await peer.asked(b"x")).message == b"x"


async def test_callers_who_leave_or_speak_no_tls_are_forgotten(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    async with pair(tls=serving(authority.signed("first")), handshake_seconds=PATIENCE) as it:
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n"):
            for _ in range(4):
                with socket.create_connection(("127.0.0.1", it.port)) as caller:
                    caller.sendall(said)
        await eventually(lambda: it.dealing.seen == 8)
        await eventually(lambda: it.connections == [0, 0])


async def test_a_connection_too_many_is_closed_and_counts_no_longer() -> None:
    async with pair(max_connections=1) as it:
        it.dealing.keeps_all = True
        async with peer_of(it.port) as peer:
            assert (await peer.asked(b"x")).message == b"x"
            with pytest.raises(ConnectionEnded):
                async with peer_of(it.port) as another:
                    await another.asked(b"x")
            assert it.connections == [1, 0]
            assert it.dealing.fewer_counted == 1


async def test_those_who_wait_to_be_accepted_are_accepted_before_the_port_closes() -> None:
    async with pair() as it:
        it.dealing.keeps_all = True
        callers = [socket.create_connection(("127.0.0.1", it.port)) for _ in range(200)]
        for caller in callers:
            # The server closes silent connections without a notice when it stops.
            caller.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        stopping = asyncio.ensure_future(it.servers[0].stop(PATIENCE))
        for caller in callers:
            caller.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=caller)
            # The first nine bytes are those of the server's settings: the connection was accepted and not reset.
            assert len(await reader.readexactly(9)) == 9
            writer.transport.abort()
        await stopping
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", it.port))


async def test_connections_that_come_from_others_during_the_drain_are_told_to_go() -> None:
    async with pair() as it:
        async with peer_of(it.port) as peer:
            call = asyncio.ensure_future(peer.asked(b"wait"))
            await it.services[0].begun.wait()
            stopping = asyncio.ensure_future(it.servers[0].stop(PATIENCE))
            await eventually(lambda: not it.servers[0]._listeners)
            ours, theirs = socket.socketpair()
            it.servers[0].adopt(theirs)
            ours.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=ours)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            # The connection ends at once: nothing on it holds up the drain.
            await asyncio.wait_for(reader.read(), PATIENCE)
            writer.transport.abort()
            it.services[0].may_answer.set()
            assert (await call).message == b"wait"
        await stopping


async def test_where_no_descriptors_are_left_callers_wait_until_there_are() -> None:
    async with pair() as it:
        callers = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(open_descriptors())
        # Occupy every lower number, so that no descriptor is left.
        fillers = [os.dup(0) for _ in range(highest + 1 - len(open_descriptors()))]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
            for caller in callers:
                caller.connect(("127.0.0.1", it.port))
            for _ in range(10):
                await asyncio.sleep(0.01)
            assert it.dealing.seen == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        await eventually(lambda: it.dealing.seen == 3)
        for caller in callers:
            caller.close()


async def test_a_server_that_does_not_deal_adopts_nothing() -> None:
    server = Server(ServerLimits())
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(ValueError, match="deals"):
        server.adopt(theirs)
