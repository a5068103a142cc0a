"""An upgrade of all services under load, as docs/operations.md describes it, seen by the Python clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from intent_serving_client import AsyncIntentClient, ChannelOptions, IntentClient, ServingError
from tests.builders import PATIENCE, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, start

pytestmark = pytest.mark.timeout(600)

MODELS = ROOT / "models"
DOCUMENT = "make a 10 minute timer"
RETRIES = ChannelOptions(attempts=4)
CALLS_BETWEEN = 50


@dataclass
class Load:
    """Calls that follow each other without a pause, and the errors with which any of them failed."""

    answered: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    failures: list[str] = field(default_factory=list)
    ended: bool = False

    async def work(self, predict: Callable[[], Awaitable[str]]) -> None:
        while not self.ended:
            try:
                assert await predict() == "timer"
            except ServingError as error:
                self.failures.append(f"{error.code.name}: {error}")
            self.answered.release()

    async def goes_on(self) -> None:
        """Return once further calls have been answered."""
        self.answered = asyncio.Semaphore(0)
        async with asyncio.timeout(PATIENCE):
            for _ in range(CALLS_BETWEEN):
                await self.answered.acquire()


@asynccontextmanager
async def load(target: str) -> AsyncIterator[dict[str, Load]]:
    """Call the frontends at ``target`` with the blocking client, and with both channels of the one for asyncio."""
    loads = {kind: Load() for kind in ("blocking", "asyncio", "fast")}
    plain, fast = (ChannelOptions(attempts=RETRIES.attempts, fast=fast) for fast in (False, True))
    with IntentClient(target, timeout=PATIENCE, options=RETRIES) as blocking:
        async with (
            AsyncIntentClient(target, timeout=PATIENCE, options=plain) as of_grpcio,
            AsyncIntentClient(target, timeout=PATIENCE, options=fast) as of_extra,
        ):

            async def in_thread() -> str:
                return (await asyncio.to_thread(blocking.predict, "clinc150", DOCUMENT)).label

            async def on_grpcio() -> str:
                return (await of_grpcio.predict("clinc150", DOCUMENT)).label

            async def on_fast() -> str:
                return (await of_extra.predict("clinc150", DOCUMENT)).label

            predictions = (in_thread, on_grpcio, on_fast)
            work = [
                asyncio.ensure_future(load.work(each)) for load, each in zip(loads.values(), predictions, strict=True)
            ]
            try:
                await asyncio.gather(*(load.goes_on() for load in loads.values()))
                yield loads
            finally:
                for each in loads.values():
                    each.ended = True
                await asyncio.gather(*work)


async def test_services_that_are_replaced_one_by_one_fail_no_call_of_clients_with_retries(tmp_path: Path) -> None:
    started: list[Service] = []

    def begin(name: str, host: str, port: int, *flags: str) -> Service:
        # Addresses that no caller on this machine uses as its own, so that the next process finds its port free.
        service = start(name, MODELS, tmp_path, "--host", host, *flags, port=port)
        service.address = f"{host}:{port}"
        started.append(service)
        return service

    async def replaced(service: Service, *flags: str) -> None:
        assert await asyncio.to_thread(service.stop) == 0
        host, _, port = service.address.rpartition(":")
        await asyncio.to_thread(begin(service.name, host, int(port), *flags).wait_until_serving)
        await asyncio.gather(*(load.goes_on() for load in loads.values()))

    predictor_port, frontend_port = free_port(), free_port()
    hosts = ("127.0.0.2", "127.0.0.3")
    try:
        predictors = [begin("predictor", host, predictor_port) for host in hosts]
        routes = "intent-classification=predictor://" + ",".join(each.address for each in predictors)
        frontends = [begin("frontend", host, frontend_port, "--routes", routes) for host in hosts]
        for each in frontends:
            await asyncio.to_thread(each.wait_until_serving)
        async with load("ipv4:" + ",".join(each.address for each in frontends)) as loads:
            for each in predictors:
                await replaced(each)
            for each in frontends:
                await replaced(each, "--routes", routes)
        assert {kind: load.failures for kind, load in loads.items()} == {"blocking": [], "asyncio": [], "fast": []}
    finally:
        for each in reversed(started):
            each.kill()
