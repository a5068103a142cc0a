"""Handshakes: those that never end, callers that stay silent, and honest callers beside both."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.builders import PATIENCE
from tests.end_to_end.transports.certificates import Authority, der_of
from tests.grpc_http2.server.peers import peer_of
from tests.grpc_http2.server.service import Hosted, hosted
from tests.grpc_http2.server.test_tls import calling, serving

Pair = tuple[Path, Path]
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
MANY = 50


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.signed("server")


class Caller:
    """A connected caller that makes its handshake piece by piece."""

    def __init__(self, authority: Authority, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._heard, self._said = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = calling(authority, "h2").wrap_bio(self._heard, self._said, server_hostname="localhost")

    def say_half_a_hello(self) -> None:
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        hello = self._said.read()
        self._writer.write(hello[:100])
        self._said.write(hello[100:])

    async def greets(self) -> bool:
        """Finish the handshake; return whether the server answered the HTTP/2 greeting."""
        try:
            await self._through(self._tls.do_handshake)
            self._tls.write(GREETING)
            return len(await self._through(lambda: self._tls.read(9))) == 9
        except (OSError, EOFError):
            return False

    async def is_ended(self) -> bool:
        """Wait for the server to close the connection; return whether the server sent nothing before."""
        try:
            return await asyncio.wait_for(self._reader.read(), PATIENCE) == b""
        except ConnectionError:
            # A reset is as good as a close.
            return True

    def shown(self) -> bytes | None:
        return self._tls.getpeercert(binary_form=True)

    def close(self) -> None:
        self._writer.transport.abort()

    async def _through(self, step: Callable[[], bytes | None]) -> bytes:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self._writer.write(self._said.read())
                heard = await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE)
                if not heard:
                    raise EOFError from None
                self._heard.write(heard)
            else:
                self._writer.write(self._said.read())
                return result or b""


@asynccontextmanager
async def callers(number: int, served: Hosted, authority: Authority) -> AsyncIterator[list[Caller]]:
    """Yield ``number`` silent callers, which connect one after the other, once all have been accepted."""
    before = served.server.connections
    connected = [Caller(authority, *await asyncio.open_connection("127.0.0.1", served.port)) for _ in range(number)]
    try:
        await becomes(lambda: served.server.connections == before + number)
        yield connected
    finally:
        for caller in connected:
            caller.close()


async def becomes(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - the server is observed from outside
            await asyncio.sleep(0.001)


async def is_served(served: Hosted, authority: Authority) -> bool:
    async with peer_of(served.port, tls=calling(authority, "h2")) as peer:
        return (await peer.asked(b"a")).message == b"a"


async def test_a_caller_that_says_nothing_is_closed_in_time_and_another_may_have_its_descriptor(
    authority: Authority, pair: Pair
) -> None:
    async with hosted(tls=serving(pair), handshake_seconds=0.2) as served:
        for _ in range(3):
            async with callers(1, served, authority) as (silent,):
                assert await silent.is_ended()
                assert served.server.connections == 0
            assert await is_served(served, authority)
            await becomes(lambda: served.server.connections == 0)


async def test_those_who_say_nothing_take_no_handshake_from_anybody(authority: Authority, pair: Pair) -> None:
    async with (
        hosted(tls=serving(pair), max_handshakes=1) as served,
        callers(1, served, authority) as (slow,),
    ):
        slow.say_half_a_hello()
        await becomes(lambda: served.server.introductions)
        async with callers(MANY, served, authority):
            assert await slow.greets()


async def test_beyond_the_bound_the_oldest_handshakes_end_and_an_honest_caller_is_served(
    authority: Authority, pair: Pair
) -> None:
    async with (
        hosted(tls=serving(pair), max_handshakes=3) as served,
        callers(5, served, authority) as slow,
    ):
        for caller in slow[:3]:
            caller.say_half_a_hello()
        await becomes(lambda: len(served.server.introductions) == 3)
        for oldest, caller in zip(slow[:2], slow[3:], strict=True):
            caller.say_half_a_hello()
            assert await oldest.is_ended()
        assert await is_served(served, authority)
        assert await slow[2].is_ended()
        assert await slow[3].greets()
        assert await slow[4].greets()


async def test_of_many_who_speak_at_once_those_beyond_the_bound_are_ended_and_the_next_one_is_served(
    authority: Authority, pair: Pair
) -> None:
    async with (
        hosted(tls=serving(pair), max_handshakes=2) as served,
        callers(MANY, served, authority) as slow,
    ):
        for caller in slow:
            caller.say_half_a_hello()
        assert await is_served(served, authority)
        for caller in slow[:-1]:
            assert await caller.is_ended()
        assert await slow[-1].greets()


async def test_handshakes_in_great_number_all_come_to_their_end_where_they_are_honest(
    authority: Authority, pair: Pair
) -> None:
    async with (
        hosted(tls=serving(pair), max_handshakes=MANY) as served,
        callers(MANY, served, authority) as honest,
    ):
        assert all(await asyncio.gather(*(caller.greets() for caller in honest)))


async def test_those_who_have_not_said_anything_count_among_the_connections(authority: Authority, pair: Pair) -> None:
    async with (
        hosted(tls=serving(pair), max_connections=2) as served,
        callers(2, served, authority) as (first, second),
    ):
        third = Caller(authority, *await asyncio.open_connection("127.0.0.1", served.port))
        assert await third.is_ended()
        first.close()
        await becomes(lambda: served.server.connections == 1)
        assert await is_served(served, authority)
        assert await second.greets()
        third.close()


async def test_a_certificate_that_is_replaced_is_still_that_of_connections_before(
    authority: Authority, pair: Pair
) -> None:
    new = authority.signed("new")
    async with (
        hosted(tls=serving(pair)) as served,
        callers(2, served, authority) as (silent, slow),
    ):
        slow.say_half_a_hello()
        await becomes(lambda: served.server.introductions)
        await served.server.replace_tls(serving(new))
        async with callers(1, served, authority) as (late,):
            for caller, certificate in ((silent, pair), (slow, pair), (late, new)):
                assert await caller.greets()
                assert caller.shown() == der_of(certificate[0])


async def test_callers_who_have_connected_are_served_to_the_end_of_a_drain(authority: Authority, pair: Pair) -> None:
    """Callers are before or within their handshake, or not accepted yet, when the drain begins."""
    async with (
        hosted(tls=serving(pair)) as served,
        callers(2, served, authority) as (silent, slow),
    ):
        slow.say_half_a_hello()
        await becomes(lambda: served.server.introductions)
        client = socket.create_connection(("127.0.0.1", served.port))
        client.setblocking(False)
        stopping = asyncio.ensure_future(served.server.stop(PATIENCE))
        waiting = Caller(authority, *await asyncio.open_connection(sock=client))
        assert all(await asyncio.gather(*(caller.greets() for caller in (silent, slow, waiting))))
        for caller in (silent, slow, waiting):
            caller.close()
        await asyncio.wait_for(stopping, PATIENCE)


async def test_handshakes_that_do_not_end_do_not_hold_up_the_end(authority: Authority, pair: Pair) -> None:
    async with (
        hosted(tls=serving(pair), handshake_seconds=PATIENCE) as served,
        callers(2, served, authority) as (silent, slow),
    ):
        slow.say_half_a_hello()
        await becomes(lambda: served.server.introductions)
        await asyncio.wait_for(served.server.stop(PATIENCE), PATIENCE / 2)
        assert await silent.is_ended()
        assert await slow.is_ended()
        assert served.server.connections == 0


async def test_an_end_without_grace_leaves_nothing_behind(authority: Authority, pair: Pair) -> None:
    async with (
        hosted(tls=serving(pair), handshake_seconds=PATIENCE) as served,
        callers(2, served, authority) as (silent, slow),
    ):
        slow.say_half_a_hello()
        await becomes(lambda: served.server.introductions)
        await served.server.stop(0)
        assert not served.server.introductions
        assert await silent.is_ended()
        assert await slow.is_ended()
