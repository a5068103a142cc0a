"""Callers who ask too much of a connection: what comes of theirs, and that nobody else is harmed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import grpc
import pytest

from tests.builders import PATIENCE, channel_to
from tests.end_to_end.processes import Service
from tests.end_to_end.transports.callers import guarded, path_of
from tests.end_to_end.transports.flood import (
    ENHANCE_YOUR_CALM,
    REFUSED_STREAM,
    SILENCE_SECONDS,
    Reply,
    flood,
    pings,
    resets,
    resets_of_whole_calls,
    streams,
)
from tests.end_to_end.transports.orders import Echo, Order

pytestmark = pytest.mark.end_to_end

MUCH = 100_000
STREAMS = 1024
"""Calls at the same time that a connection may have."""
LIMIT = 1 << 20


def is_envoy(host: Service) -> bool:
    return len(host.family()) > 1


class Neighbour:
    """Another client of the service, on a connection of its own, which asks all the time."""

    def __init__(self, address: str) -> None:
        self.codes: list[str] = []
        self.seconds: list[float] = []
        self._address = address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(self._address, options=options) as channel:
            call = channel.unary_unary(path_of(guarded("Unary")), Order.to_wire, Echo.from_wire)
            while not self._over.is_set() or not self.codes:
                began = time.monotonic()
                try:
                    call(Order(text="neighbour"), timeout=PATIENCE)
                    self.codes.append("OK")
                except grpc.RpcError as error:
                    self.codes.append(error.code().name)
                self.seconds.append(time.monotonic() - began)


def asked_too_much(host: Service, kind: Callable[[str], Iterator[bytes]], most: int, *, ends: bool) -> Reply:
    """Return what came of a flood, during and after which a neighbour was answered as ever.

    Where the flood is expected to end its connection, a busy machine is given time for that.
    """
    with Neighbour(host.address) as neighbour:
        reply = flood(host.address, kind, guarded("Unary"), most, PATIENCE if ends else SILENCE_SECONDS)
    assert set(neighbour.codes) == {"OK"}
    return reply


def test_a_flood_of_pings_ends_its_connection_and_no_other(host: Service) -> None:
    reply = asked_too_much(host, pings, MUCH, ends=True)

    assert reply.closed
    # Envoy answers pings as long as the answers are read, and closes without a word where they are not.
    assert reply.farewell == (None if is_envoy(host) else ENHANCE_YOUR_CALM)


def test_a_flood_of_streams_is_refused_beyond_the_bound_and_harms_no_other_connection(host: Service) -> None:
    reply = asked_too_much(host, streams, 2 * STREAMS, ends=is_envoy(host))

    if is_envoy(host):
        assert reply.closed
    else:
        # gRPC refuses stream by stream, before anything of ours hears of them.
        assert reply.resets[REFUSED_STREAM] >= STREAMS / 2


@pytest.mark.parametrize("kind", [resets, resets_of_whole_calls])
def test_calls_that_are_cancelled_at_once_in_great_number_harm_no_other_connection(
    host: Service, kind: Callable[[str], Iterator[bytes]]
) -> None:
    reply = asked_too_much(host, kind, 20 * STREAMS, ends=is_envoy(host))

    if is_envoy(host):
        # It counts them: the connection ends long before all could be sent.
        assert reply.closed
        assert reply.sent < 20 * STREAMS


async def test_a_message_that_is_too_large_fails_alone_and_the_others_of_its_connection_go_on(host: Service) -> None:
    async with channel_to(host.address) as channel:
        call = channel.unary_unary(path_of(guarded("Unary")), Order.to_wire, Echo.from_wire)
        noted = channel.unary_unary("/transports.Echo/Noted", Order.to_wire, Echo.from_wire)
        name = f"beside a large one {time.monotonic_ns()}"
        under_way = asyncio.ensure_future(call(Order(name=name, text="b", wait=f"{name} may go"), timeout=PATIENCE))
        await noted(Order(name=f"{name} started"), timeout=PATIENCE)

        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(Order(ballast="." * (LIMIT + 1)), timeout=PATIENCE)
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await call(Order(text="next"), timeout=PATIENCE)).text == "next"

        assert not under_way.done()
        await call(Order(notes=f"{name} may go"), timeout=PATIENCE)
        assert (await under_way).text == "b"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pings, streams, resets, resets_of_whole_calls])
def test_what_a_neighbour_feels_of_floods(
    host: Service, kind: Callable[[str], Iterator[bytes]], figure: Callable[[str], None]
) -> None:
    with Neighbour(host.address) as alone:
        time.sleep(2.0)
    floods = 0
    with Neighbour(host.address) as neighbour:
        until = time.monotonic() + 5.0
        while time.monotonic() < until:
            flood(host.address, kind, guarded("Unary"), 5000)
            floods += 1

    transport = "envoy" if is_envoy(host) else "grpcio"
    before, during = (sorted(one.seconds) for one in (alone, neighbour))
    figure(
        f"flood of {kind.__name__.replace('_', ' ')} ({transport}): {floods} connections that flood; a neighbour waits"
        f" {1000 * before[len(before) * 99 // 100]:.1f} ms at the 99th percentile without, and"
        f" {1000 * during[len(during) * 99 // 100]:.1f} ms with them; {len(during)} of its calls, none failed"
    )
    assert set(neighbour.codes) == {"OK"}
