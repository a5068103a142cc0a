"""Callers that ask too much of a connection: the outcome of their calls, and that no other caller is harmed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import grpc
import psutil
import pytest

from tests.builders import PATIENCE, channel_to
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, transports
from tests.end_to_end.transports.attacks import ATTACKS, ON_TLS
from tests.end_to_end.transports.callers import guarded, path_of
from tests.end_to_end.transports.certificates import Authority
from tests.end_to_end.transports.flood import (
    ENHANCE_YOUR_CALM,
    REFUSED_STREAM,
    SILENCE_SECONDS,
    Kind,
    Reply,
    continuations,
    empty_data,
    flood,
    one_byte_data,
    pings,
    priorities,
    resets,
    resets_of_whole_calls,
    settings,
    streams,
    window_updates,
)
from tests.end_to_end.transports.orders import Echo, Order
from tests.end_to_end.transports.running import running

MUCH = 60_000
STREAMS = 1024
"""Maximum number of concurrent calls on a connection."""
LIMIT = 1 << 20
MEGABYTE: Final = 1 << 20
# Floods that the transport ends itself; grpcio tolerates the others.
ENDED: dict[str, set[Kind]] = {
    "http2": {pings, settings, window_updates, priorities, continuations, empty_data, one_byte_data},
    "grpcio": {pings, empty_data},
}


@pytest.fixture
def transport(host: Service) -> str:
    """Return the transport that hosts the program."""
    command = host.process.args
    assert isinstance(command, list)
    return str(command[command.index("--transport") + 1])


class Neighbour:
    """Another client of the service, on its own connection, that calls without a break.

    With an ``authority`` it reconnects for each call, over TLS.
    """

    def __init__(self, address: str, authority: Path | None = None) -> None:
        self.codes: list[str] = []
        self.seconds: list[float] = []
        self._address = address
        self._authority = authority
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._over.is_set() or not self.codes:
            with self._channel() as channel:
                call = channel.unary_unary(path_of(guarded("Unary")), Order.to_wire, Echo.from_wire)
                self._ask_once(call)
                while self._authority is None and not self._over.is_set():
                    self._ask_once(call)

    def _channel(self) -> grpc.Channel:
        options = (("grpc.use_local_subchannel_pool", 1),)
        if self._authority is None:
            return grpc.insecure_channel(self._address, options=options)
        credentials = grpc.ssl_channel_credentials(self._authority.read_bytes())
        return grpc.secure_channel(self._address, credentials, options=options)

    def _ask_once(self, call: grpc.UnaryUnaryMultiCallable[Order, Echo]) -> None:
        began = time.monotonic()
        try:
            call(Order(text="neighbour"), timeout=PATIENCE)
            self.codes.append("OK")
        except grpc.RpcError as error:
            self.codes.append(error.code().name)
        self.seconds.append(time.monotonic() - began)


def asked_too_much(host: Service, kind: Kind, most: int, *, ends: bool) -> Reply:
    """Return the outcome of a flood, during and after which a neighbour was answered as usual.

    If the flood is expected to end its connection, a busy machine is given time for that.
    """
    with Neighbour(host.address) as neighbour:
        reply = flood(host.address, kind, guarded("Unary"), most, PATIENCE if ends else SILENCE_SECONDS)
    assert set(neighbour.codes) == {"OK"}
    return reply


@pytest.mark.parametrize(
    "kind", [pings, settings, window_updates, priorities, continuations, empty_data, one_byte_data]
)
def test_a_flood_of_frames_ends_its_connection_and_harms_no_other(host: Service, transport: str, kind: Kind) -> None:
    ends = kind in ENDED[transport]
    reply = asked_too_much(host, kind, MUCH, ends=ends)

    if ends:
        assert reply.closed
        # The GOAWAY is lost if the flood continues.
        assert reply.farewell in (None, ENHANCE_YOUR_CALM)


def test_a_flood_of_streams_is_refused_beyond_the_bound_and_harms_no_other_connection(
    host: Service, transport: str
) -> None:
    reply = asked_too_much(host, streams, 2 * STREAMS, ends=transport == "http2")

    if transport == "http2":
        assert reply.closed
    else:
        # gRPC refuses each stream itself, before any code of ours is notified of it.
        assert reply.resets[REFUSED_STREAM] >= STREAMS / 2


@pytest.mark.parametrize("kind", [resets, resets_of_whole_calls])
def test_calls_that_are_cancelled_at_once_in_great_number_harm_no_other_connection(host: Service, kind: Kind) -> None:
    asked_too_much(host, kind, 10 * STREAMS, ends=False)


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


# Figures


@contextmanager
def attacked(address: str, attack: str) -> Iterator[None]:
    """Attack the service from another process, which only gets processor time that no other process needs."""
    command = ["nice", "-n", "19", sys.executable, "-m", "tests.end_to_end.transports.attacks", address, attack]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        # Wait until the attack is under way.
        assert process.stdout.readline() == b"attacking\n"
        try:
            yield
        finally:
            process.kill()


def asked_for(seconds: float, address: str, *, all_answered: bool = True, authority: Path | None = None) -> list[float]:
    """Return the times of a neighbour's calls in ascending order."""
    with Neighbour(address, authority) as neighbour:
        time.sleep(seconds)
    assert set(neighbour.codes) == {"OK"} or not all_answered
    return sorted(neighbour.seconds)


def most_resident(process: psutil.Process, until: threading.Event) -> int:
    most = 0
    while not until.wait(0.05):
        most = max(most, process.memory_info().rss)
    return most


@pytest.mark.alone
@pytest.mark.parametrize("transport_of_figures", transports())
@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_neighbour_feels_of_an_attack(
    attack: str, transport_of_figures: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    with running(tmp_path, transport_of_figures) as service:
        asked_for(1.0, service.address)
        process = psutil.Process(service.process.pid)
        before, alone = process.memory_info().rss, asked_for(5.0, service.address)
        over = threading.Event()
        found: list[int] = []
        watch = threading.Thread(target=lambda: found.append(most_resident(process, over)))
        watch.start()
        try:
            with attacked(service.address, attack):
                # grpcio cancels calls of neighbours in some floods.
                during = asked_for(5.0, service.address, all_answered=transport_of_figures == "http2")
        finally:
            over.set()
            watch.join()

    first, second = (1000 * times[len(times) * 99 // 100] for times in (alone, during))
    grown = (found[0] - before) / MEGABYTE
    figure(
        f"{attack.replace('_', ' ')} ({transport_of_figures}): a neighbour's 99th percentile is {first:.1f} ms alone"
        f" and {second:.1f} ms beside it ({len(alone)} and {len(during)} calls); the service grows by {grown:.0f} MiB"
    )
    if transport_of_figures == "http2":
        assert grown <= 64


@pytest.mark.alone
@pytest.mark.parametrize("attack", ON_TLS)
def test_what_a_neighbour_feels_of_an_attack_on_tls(attack: str, tmp_path: Path, figure: Callable[[str], None]) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.signed("server")
    flags = ("--tls-certificate", str(certificate), "--tls-key", str(key))
    with running(tmp_path / "service", "http2", *flags) as service:
        alone = asked_for(2.0, service.address, authority=authority.certificate)
        process = psutil.Process(service.process.pid)
        before = process.memory_info().rss
        over = threading.Event()
        found: list[int] = []
        watch = threading.Thread(target=lambda: found.append(most_resident(process, over)))
        watch.start()
        try:
            with attacked(service.address, attack):
                during = asked_for(5.0, service.address, authority=authority.certificate)
        finally:
            over.set()
            watch.join()
    first, second = (1000 * times[len(times) * 99 // 100] for times in (alone, during))
    grown = (found[0] - before) / MEGABYTE
    figure(
        f"{attack.replace('_', ' ')} (http2 with TLS): the 99th percentile of a neighbour that connects anew for each"
        f" call is {first:.1f} ms alone and {second:.1f} ms beside it ({len(alone)} and {len(during)} calls); the"
        f" service grows by {grown:.0f} MiB"
    )
    assert grown <= 64
