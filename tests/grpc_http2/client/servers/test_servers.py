"""Several servers behind one channel: which of them get calls, and which are skipped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from ngh2.events import Event

from grpc_http2.client.calls.retries import RetryPolicy
from grpc_http2.client.channel import Channel
from grpc_http2.client.settings import ChannelSettings, Pings
from tests.builders import PATIENCE
from tests.grpc_http2.client.peers import ONE, SERVICE, Peer, answering, complete, echoing, error_of, peers

SETTINGS = ChannelSettings(
    retries=RetryPolicy(),
    health_service=SERVICE,
    connect_seconds=1.0,
    first_backoff_seconds=0.02,
    max_backoff_seconds=0.1,
    pings=Pings(0.5, 1.0),
)
KEYS = [str(number) for number in range(200)]
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Server:
    """A server that answers with its name."""

    name: str
    with_health: bool = True
    address: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        self.may_answer.set()
        self.health: Any = HealthServicer()
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers: Any = {"One": grpc.unary_unary_rpc_method_handler(self._one)}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if self.with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
            await self.health.set(SERVICE, SERVING)
        port = self.server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(0)

    async def _one(self, request: bytes, context: Any) -> bytes:
        del request, context
        if not self.may_answer.is_set():
            self.reached.set()
            await self.may_answer.wait()
        return self.name.encode()


@asynccontextmanager
async def three(
    settings: ChannelSettings = SETTINGS, *, with_health: bool = True
) -> AsyncIterator[tuple[Channel, dict[str, Server]]]:
    servers = {name: Server(name, with_health) for name in "abc"}
    async with AsyncExitStack() as stack:
        for server in servers.values():
            await server.start()
            stack.push_async_callback(server.stop)
        channel = Channel([server.address for server in servers.values()], settings)
        stack.push_async_callback(channel.close)
        yield channel, servers


async def places_of(channel: Channel, keys: Sequence[str] = KEYS) -> dict[str, str]:
    ask = channel.unary_unary(ONE)
    answers = await asyncio.gather(*(ask(b"x", timeout=PATIENCE, affinity=key) for key in keys))
    return {key: answer.decode() for key, answer in zip(keys, answers, strict=True)}


async def places_become(channel: Channel, left: set[str]) -> dict[str, str]:
    async with asyncio.timeout(PATIENCE):
        while set((await places_of(channel)).values()) != left:  # noqa: ASYNC110 - a channel sends no notification
            await asyncio.sleep(0.01)
    return await places_of(channel)


async def becomes(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - a channel sends no notification
            await asyncio.sleep(0.01)


async def test_a_key_has_one_server_which_can_be_asked_for_and_every_server_has_keys() -> None:
    async with three() as (channel, servers):
        addresses = {key: channel.address_for(key) for key in KEYS}
        places = await places_of(channel)
        assert set(places.values()) == set(servers)
        assert {key: servers[place].address for key, place in places.items()} == addresses
        assert await places_of(channel) == places


async def test_calls_without_a_key_go_to_anybody() -> None:
    async with three() as (channel, servers):
        answers = {await channel.unary_unary(ONE)(b"x", timeout=PATIENCE) for _ in range(100)}
        assert answers == {name.encode() for name in servers}


async def test_a_server_that_says_not_serving_is_passed_over_and_gets_its_keys_back() -> None:
    async with three() as (channel, servers):
        places = await places_of(channel)
        await servers["b"].health.set(SERVICE, NOT_SERVING)
        without = await places_become(channel, {"a", "c"})
        assert all(without[key] == place for key, place in places.items() if place != "b")
        await servers["b"].health.set(SERVICE, SERVING)
        assert await places_become(channel, set(servers)) == places


async def test_a_server_without_health_serves() -> None:
    async with three(with_health=False) as (channel, servers):
        assert set((await places_of(channel)).values()) == set(servers)


async def test_a_server_that_never_tells_its_health_is_passed_over() -> None:
    async with peers(lambda *_: None) as silent:
        server = Server("a")
        await server.start()
        async with Channel([silent.address, server.address], SETTINGS) as channel:
            assert set((await places_of(channel)).values()) == {"a"}
        await server.stop()


async def test_a_server_that_is_gone_fails_no_call_and_gets_its_keys_back() -> None:
    async with three() as (channel, servers):
        places = await places_of(channel)
        await servers["c"].stop()
        without = await places_of(channel)
        assert set(without.values()) == {"a", "b"}
        assert all(without[key] == place for key, place in places.items() if place != "c")
        await servers["c"].start()
        assert await places_become(channel, set(servers)) == places


async def test_a_server_that_is_gone_in_the_middle_of_calls_has_them_answered_elsewhere() -> None:
    def act(peer: Peer, event: Event) -> None:
        # The first request is the health check; many calls at once follow.
        if len(peer.requests) > 2 and complete(event) is not None:
            peer.transport.abort()
        elif len(peer.requests) == 1:
            answering(peer, event)

    async with peers(act) as dying:
        server = Server("b")
        await server.start()
        async with Channel([dying.address, server.address], SETTINGS) as channel:
            asking = asyncio.ensure_future(places_of(channel))
            await becomes(lambda: bool(dying.requests > 1))
            dying.close()
            assert set((await asking).values()) == {"b"}
        await server.stop()


async def test_a_server_that_hangs_is_passed_over_and_its_calls_are_asked_elsewhere() -> None:
    async with peers(answering) as hanging:
        server = Server("b")
        await server.start()
        async with Channel([hanging.address, server.address], SETTINGS) as channel:
            assert set((await places_of(channel)).values()) == {"answer", "b"}
            hanging.close()
            for connection in hanging.connections:
                connection.transport.pause_reading()
            assert set((await places_of(channel)).values()) == {"b"}
        await server.stop()


async def test_when_nobody_is_left_the_answer_comes_at_once_and_those_who_wait_are_answered_later() -> None:
    async with three() as (channel, servers):
        await places_of(channel)
        for server in servers.values():
            await server.stop()
        ask = channel.unary_unary(ONE)
        assert (await error_of(ask(b"x", timeout=PATIENCE, affinity="1"))).code() is StatusCode.UNAVAILABLE
        assert channel.address_for("1") is None
        waiting = ask(b"x", timeout=PATIENCE, affinity="1", wait_for_ready=True)
        await servers["b"].start()
        assert await waiting == b"b"


async def test_servers_that_join_and_leave_move_their_own_share_and_fail_no_call() -> None:
    async with three() as (channel, servers):
        addresses = {name: server.address for name, server in servers.items()}
        all_three = await places_of(channel)
        connected = dict(channel.balancer._servers)

        servers["c"].may_answer.clear()
        asking = asyncio.ensure_future(places_of(channel))
        await asyncio.wait_for(servers["c"].reached.wait(), PATIENCE)
        channel.set_addresses([addresses["a"], addresses["b"]])
        without = await places_of(channel)
        assert all(without[key] == place for key, place in all_three.items() if place != "c")
        assert set(without.values()) == {"a", "b"}
        assert channel.balancer._servers[addresses["a"]] is connected[addresses["a"]]
        servers["c"].may_answer.set()
        assert await asking == all_three
        await becomes(lambda: connected[addresses["c"]].is_gone)

        channel.set_addresses(list(addresses.values()))
        assert await places_of(channel) == all_three


async def test_calls_that_wait_for_a_server_that_leaves_go_to_another() -> None:
    async with peers(echoing, greets=False) as silent:
        server = Server("a")
        await server.start()
        async with Channel([silent.address], SETTINGS) as channel:
            waiting = channel.unary_unary(ONE)(b"x", timeout=PATIENCE, affinity="1")
            await becomes(lambda: bool(silent.connections))
            channel.set_addresses([server.address])
            assert await waiting == b"a"
        await server.stop()


async def test_one_server_that_becomes_several_is_watched_from_then_on() -> None:
    async with three() as (channel, servers):
        addresses = [server.address for server in servers.values()]
        channel.set_addresses(addresses[:1])
        await servers["a"].health.set(SERVICE, NOT_SERVING)
        assert set((await places_of(channel)).values()) == {"a"}
        channel.set_addresses(addresses)
        await places_become(channel, {"b", "c"})
        channel.set_addresses(addresses[:1])
        assert set((await places_of(channel)).values()) == {"a"}


async def test_new_connections_take_over_without_a_failed_call() -> None:
    async with peers(echoing) as server, Channel([server.address]) as channel:
        ask = channel.unary_unary(ONE)
        for _ in range(5):
            calls = [ask(b"x", timeout=PATIENCE) for _ in range(10)]
            channel.renew()
            assert {await call for call in calls} == {b"answer"}
            await ask(b"x", timeout=PATIENCE)
        assert len(server.connections) > 3
        await becomes(lambda: all(old.lost.is_set() for old in server.connections[:-1]))
