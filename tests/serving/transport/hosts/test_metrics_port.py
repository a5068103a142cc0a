from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.runtime.assembly.metrics import with_metrics
from serving.runtime.workload import Workload
from serving.transport.hosts.listening import CannotListen
from serving.transport.hosts.metrics_port import MetricsServer
from tests.builders import PATIENCE, free_port

MOST_AT_ONCE = 8


class Numbers(Collector):
    """A collector that reports the number of its collections under ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.failure: Exception | None = None

    def collect(self) -> Iterator[Metric]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        yield GaugeMetricFamily(self.name, "A number.", value=self.asked)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def scraped(port: int, host: str = "127.0.0.1") -> dict[str, float]:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=PATIENCE) as answer:
        text = answer.read().decode()
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_every_collector_is_asked_at_every_scrape() -> None:
    port = free_port()
    server = MetricsServer("127.0.0.1", port, [Numbers("one"), Numbers("two")])
    await server.start()
    try:
        assert await asyncio.to_thread(scraped, port) == {"one": 1, "two": 1}
        assert await asyncio.to_thread(scraped, port) == {"one": 2, "two": 2}
        # The number of scrapes that follow each other is not limited.
        for number in range(3, 4 * MOST_AT_ONCE):
            assert await asyncio.to_thread(scraped, port) == {"one": number, "two": number}
    finally:
        await server.close()


async def test_a_scrape_is_answered_while_the_event_loop_is_busy() -> None:
    port = free_port()
    server = MetricsServer("127.0.0.1", port, [Numbers("one")])
    await server.start()
    try:
        # The call blocks the event loop until the answer has arrived.
        assert scraped(port) == {"one": 1}
    finally:
        await server.close()


async def test_after_the_end_the_port_is_free() -> None:
    port = free_port()
    for _ in range(2):
        server = MetricsServer("127.0.0.1", port, [Numbers("one")])
        await server.start()
        await server.close()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scraped, port)


async def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = MetricsServer("127.0.0.1", port, [])
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port} for metrics"):
            await server.start()
        await server.close()


async def test_a_caller_who_asks_nothing_is_let_go() -> None:
    port = free_port()
    server = MetricsServer("127.0.0.1", port, [Numbers("one")], request_seconds=0.2)
    await server.start()
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as silent:
            assert await asyncio.to_thread(silent.recv, 1) == b""
    finally:
        await server.close()


async def test_scrapes_beyond_a_few_at_once_are_refused() -> None:
    port = free_port()
    server = MetricsServer("127.0.0.1", port, [Numbers("one")], request_seconds=PATIENCE)
    await server.start()
    try:
        with contextlib.ExitStack() as stack:
            silent = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
                for _ in range(MOST_AT_ONCE)
            ]
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as one_more:
                assert await asyncio.to_thread(one_more.recv, 1) == b""
            # The connections that came first are still served.
            silent[0].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert (await asyncio.to_thread(silent[0].recv, 15)).startswith(b"HTTP/1.0 200")
    finally:
        await server.close()


async def test_a_collector_that_fails_fails_one_scrape() -> None:
    port = free_port()
    numbers = Numbers("one")
    server = MetricsServer("127.0.0.1", port, [numbers])
    await server.start()
    try:
        numbers.failure = ZeroDivisionError()
        with pytest.raises(urllib.error.HTTPError, match="500"):
            await asyncio.to_thread(scraped, port)
        numbers.failure = None
        assert await asyncio.to_thread(scraped, port) == {"one": 2}
    finally:
        await server.close()


# In the life of a service.


def workload(events: list[str]) -> Workload:
    async def told(event: str) -> None:
        events.append(event)

    return Workload([], lambda: told("ready"), lambda: told("closed"))


async def test_metrics_are_told_from_before_the_service_is_ready_until_it_is_closed() -> None:
    events: list[str] = []
    port = free_port()
    inner = workload(events)

    async def ready() -> None:
        assert await asyncio.to_thread(scraped, port) == {"one": 1}
        await inner.get_ready()

    async def close() -> None:
        assert await asyncio.to_thread(scraped, port) == {"one": 2}
        await inner.close()

    it = with_metrics(Workload([], ready, close, collectors=[Numbers("one")]), "127.0.0.1", port)
    await it.get_ready()
    await it.close()
    assert events == ["ready", "closed"]
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scraped, port)


async def test_metrics_end_where_the_service_fails_to_close() -> None:
    async def nothing() -> None:
        pass

    async def fail() -> None:
        raise ZeroDivisionError

    port = free_port()
    it = with_metrics(Workload([], nothing, fail, collectors=[Numbers("one")]), "127.0.0.1", port)
    await it.get_ready()
    with pytest.raises(ZeroDivisionError):
        await it.close()
    with pytest.raises(OSError, match="refused"):
        await asyncio.to_thread(scraped, port)


def test_without_a_port_there_are_none() -> None:
    events: list[str] = []
    it: Any = workload(events)
    assert with_metrics(it, "127.0.0.1", 0) is it
