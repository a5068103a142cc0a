"""More calls than can be answered: those that are admitted are answered in time, the others are refused at once."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.stubs import prediction_service_pb2 as pb
from tests.builders import free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import stack, transports
from tests.end_to_end.test_explanations import write_model
from tests.end_to_end.traced_predictor import executions, stack_with_trace

METHOD = "/prediction.PredictionService/Predict"
MODEL = "costly"
TOKENIZER = "basic_english+words:5+characters:2-8"
TEXT = "make a timer set the alarm what is my balance a red balance "
CHARACTERS = 30_000
"""Length of a document, in characters: half the limit, and tens of milliseconds of work with all its n-grams."""
CONNECTIONS = 4
CALLERS = 16
PEAK_SECONDS = 5.0
FACTOR = 5.0
DEADLINE_SECONDS = 2.0
SETTLED_SECONDS = 3.0
"""Seconds in which the service finds its capacity, and the deadline of the calls that it admitted before passes."""
OVERLOAD_SECONDS = 13.0


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass(frozen=True)
class Ended:
    """A call as its caller saw it; times are on the machine's monotonic clock."""

    number: int
    began: float
    ended: float
    code: grpc.StatusCode
    retry_after: str | None = None

    @property
    def seconds(self) -> float:
        return self.ended - self.began


class Load:
    """Callers of one frontend, which number their queries."""

    def __init__(self, channels: Sequence[grpc.aio.Channel], request: Callable[[int], bytes]) -> None:
        self._asks: list[Any] = [channel.unary_unary(METHOD) for channel in channels]
        self._request = request
        self._numbers = itertools.count(1)
        self.ended: list[Ended] = []

    async def ask(self, seconds: float) -> Ended:
        number = next(self._numbers)
        request = self._request(number)
        began = time.monotonic()
        code, retry_after = grpc.StatusCode.OK, None
        try:
            await self._asks[number % len(self._asks)](request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            retry_after = dict(error.trailing_metadata() or ()).get("retry-after")
        ended = Ended(number, began, time.monotonic(), code, retry_after)
        self.ended.append(ended)
        return ended

    async def closed(self, callers: int, seconds: float, *, patience: float = 60.0) -> float:
        """Call with ``callers`` callers, each of which calls again once answered; return the answers per second."""
        began = time.monotonic()
        before = len(self.ended)

        async def caller() -> None:
            while time.monotonic() < began + seconds:
                await self.ask(patience)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return (len(self.ended) - before) / (time.monotonic() - began)

    async def at_rate(self, rate: float, seconds: float, *, patience: float) -> list[Ended]:
        """Call at a rate, whatever is answered; return the outcomes of the calls."""
        began = time.monotonic()
        calls: list[asyncio.Task[Ended]] = []
        while (now := time.monotonic()) < began + seconds:
            calls += [asyncio.ensure_future(self.ask(patience)) for _ in range(int((now - began) * rate) - len(calls))]
            await asyncio.sleep(1.0 / rate)
        return list(await asyncio.gather(*calls))


@contextmanager
def without_pauses() -> Iterator[None]:
    """Keep the callers' garbage collector out of their measurements."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Lateness:
    """Lateness of the callers' own event loop, which their measurements include."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._timer = self._next()

    def stop(self) -> None:
        self._timer.cancel()

    def percentile(self, percent: int) -> float:
        """Return the seconds that ``percent`` percent of the samples do not exceed."""
        return sorted(self._seconds)[len(self._seconds) * percent // 100]

    def _next(self) -> asyncio.TimerHandle:
        due = self._loop.time() + 0.005
        return self._loop.call_at(due, self._look, due)

    def _look(self, due: float) -> None:
        self._seconds.append(self._loop.time() - due)
        self._timer = self._next()


@asynccontextmanager
async def load_on(address: str, request: Callable[[int], bytes]) -> AsyncIterator[Load]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CONNECTIONS)]
    try:
        yield Load(channels, request)
    finally:
        for channel in channels:
            await channel.close()


def costly_request(number: int) -> bytes:
    document = f"{number} {TEXT * (CHARACTERS // len(TEXT))}"
    return pb.PredictRequest(runId=MODEL, document=document).SerializeToString()


def metric(port: int, name: str) -> float:
    """Return the sum of a metric's series."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE))


@pytest.mark.alone
async def test_five_times_the_load_that_can_be_answered(
    transport: str, volume: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    write_model(volume / MODEL, TOKENIZER)
    flags = ("--log-calls", "none")
    with stack_with_trace(
        volume, tmp_path, transport=transport, frontend=flags, predictor=(*flags, "--inference-threads", "1")
    ) as (both, trace):
        async with load_on(both.frontend.address, costly_request) as load:
            await load.ask(60.0)
            with without_pauses():
                peak_before = await load.closed(CALLERS, PEAK_SECONDS)
                assert {call.code for call in load.ended} == {grpc.StatusCode.OK}

                lateness = Lateness()
                began = time.monotonic()
                calls = await load.at_rate(FACTOR * peak_before, OVERLOAD_SECONDS, patience=DEADLINE_SECONDS)
                ended = time.monotonic()
                lateness.stop()
                answered = len(load.ended)
                peak_after = await load.closed(CALLERS, PEAK_SECONDS)
                assert {call.code for call in load.ended[answered:]} == {grpc.StatusCode.OK}, "it is as before"

    # The speed of the machine varies over time.
    peak = (peak_before + peak_after) / 2.0
    settled = [call for call in calls if call.ended >= began + SETTLED_SECONDS]
    good = sum(call.code is grpc.StatusCode.OK for call in settled) / (ended - began - SETTLED_SECONDS)
    refused = sorted(call.seconds for call in settled if call.code is grpc.StatusCode.RESOURCE_EXHAUSTED)
    begun = executions(trace)
    # A service receives a deadline as the seconds that were left when the call was sent,
    # so the deadline is later there by the time in transit.
    late = [begun.get(call.number, 0.0) - call.began - DEADLINE_SECONDS for call in calls]
    expired = [seconds for seconds in late if seconds > 0.0]
    codes = Counter(call.code.name for call in settled)
    figure(
        f"overload ({transport}): {len(calls) / OVERLOAD_SECONDS:.0f} calls a second offered to a peak of {peak:.0f}:"
        f" {good:.0f} answered in time = {good / peak:.0%} of the peak; {codes['RESOURCE_EXHAUSTED']} refusals, half of"
        f" them within {1000 * refused[len(refused) // 2]:.1f} ms and 99 % within"
        f" {1000 * refused[len(refused) * 99 // 100]:.1f} ms, where the callers themselves are late by"
        f" {1000 * lateness.percentile(99):.1f} ms as often; {codes['DEADLINE_EXCEEDED']} too late;"
        f" {len(expired)} of {len(begun)} executions begun after the caller's deadline, at most"
        f" {1000 * max(expired, default=0.0):.0f} ms"
    )

    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert any(call.retry_after for call in calls), "who is refused is told when to ask again"
    # Without protection, almost nothing is answered in time.
    assert good >= peak / 4


@pytest.mark.slow
@pytest.mark.parametrize("callers", [64, 256, 1000])
async def test_however_many_callers_a_healthy_service_refuses_none(
    transport: str, tmp_path: Path, callers: int, figure: Callable[[str], None]
) -> None:
    request = pb.PredictRequest(runId="clinc150", document="make a 10 minute timer").SerializeToString()
    port = free_port()
    flags = ("--metrics-port", str(port), "--log-calls", "none")
    with stack(ROOT / "models", tmp_path, frontend=flags, transport=transport) as both:
        async with load_on(both.frontend.address, lambda _: request) as load:
            await load.ask(60.0)
            rate = await load.closed(callers, PEAK_SECONDS, patience=10.0)
        refused = metric(port, "intent_requests_refused_total")

    figure(f"healthy ({transport}): {callers} callers, {rate:.0f} answers a second, {refused:.0f} refused")
    assert {call.code for call in load.ended} == {grpc.StatusCode.OK}
    assert refused == 0
