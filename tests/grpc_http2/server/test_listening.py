"""Listening sockets."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from grpc_http2.server.limits import ServerLimits
from grpc_http2.server.listening import bound_sockets
from grpc_http2.server.server import Server
from tests.grpc_http2.server.peers import peer_of
from tests.grpc_http2.server.service import hosted


async def answers(host: str, port: int) -> bool:
    """Return whether a server accepts connections at this address."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.transport.abort()
    return True


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]"])
async def test_an_address_is_listened_on_at_a_free_port(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    server = Server(ServerLimits())
    port = await server.listen(host, 0)
    assert port
    assert await answers(host.strip("[]"), port)
    await server.stop(0)
    assert not await answers(host.strip("[]"), port)


async def test_a_name_is_listened_on_at_each_of_its_addresses_and_at_one_port() -> None:
    server = Server(ServerLimits())
    port = await server.listen("localhost", 0)
    found = await asyncio.get_running_loop().getaddrinfo("localhost", port, type=socket.SOCK_STREAM)
    for *_, address in dict.fromkeys(found):
        assert await answers(str(address[0]), port)
    await server.stop(0)


async def test_a_port_that_is_taken_is_an_error_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        with pytest.raises(OSError, match="in use") as caught:
            await bound_sockets("127.0.0.1", holder.getsockname()[1])
        assert caught.value.errno == errno.EADDRINUSE
    async with hosted() as served:
        with pytest.raises(OSError, match="in use"):
            await Server(ServerLimits()).listen("127.0.0.1", served.port)


async def test_two_that_share_a_port_may_both_listen() -> None:
    first, second = Server(ServerLimits()), Server(ServerLimits())
    port = await first.listen("127.0.0.1", 0, reuse_port=True)
    assert await second.listen("127.0.0.1", port, reuse_port=True) == port
    await first.stop(0)
    assert await answers("127.0.0.1", port)
    await second.stop(0)


async def test_an_address_of_another_machine_and_a_name_that_is_none_are_errors() -> None:
    for host in ("192.0.2.1", "no-such-name.invalid"):
        with pytest.raises(OSError):  # noqa: PT011 - the message is the system's
            await bound_sockets(host, 0)


async def test_connections_that_wait_to_be_accepted_are_accepted_before_the_port_closes() -> None:
    """The kernel already considers these clients connected."""
    async with hosted() as served:
        clients = []
        for _ in range(10):
            client = socket.create_connection(("127.0.0.1", served.port))
            client.setblocking(False)
            clients.append(client)
        stopping = asyncio.ensure_future(served.server.stop(5.0))
        loop = asyncio.get_running_loop()
        for client in clients:
            reader, writer = await asyncio.open_connection(sock=client)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            # The first nine bytes are those of the server's settings: the connection was accepted and not reset.
            assert len(await reader.readexactly(9)) == 9
            writer.transport.abort()
        await stopping
        assert loop.is_running()


async def test_callers_are_told_by_their_addresses() -> None:
    async with hosted() as served, peer_of(served.port) as peer:
        await peer.asked(b"a")
        (connection,) = served.server._connections
        name = peer.writer.get_extra_info("sockname")
        assert connection.peer.name() == f"ipv4:127.0.0.1:{name[1]}"
        assert connection.peer.address() == ("127.0.0.1", name[1])
