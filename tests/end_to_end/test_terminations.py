"""SIGTERM at random moments, under load: no accepted call is lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.stubs import prediction_service_pb2 as pb
from tests.builders import PATIENCE, channel_to
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, running_service, start, transports

TERMINATIONS = int(os.environ.get("INTENT_TEST_TERMINATIONS", "20"))
"""Number of lives on each transport. A life takes a processor a second or two; 500 on both take it half an hour."""
LONGEST_SECONDS = 6
"""Maximum duration of a life on a busy machine, in seconds."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60 + LONGEST_SECONDS * TERMINATIONS)]
AT_ONCE = 2
CALLERS = 32
LONGEST_LIFE_SECONDS = 0.5
METHOD = "/prediction.PredictionService/Predict"
REQUEST = pb.PredictRequest(runId="clinc150", document="make a 10 minute timer").SerializeToString()
REFUSED = {
    "http2": {grpc.StatusCode.UNAVAILABLE},
    # grpcio cancels calls that cross its GOAWAY on the wire.
    "grpcio": {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED},
}


class Callers:
    """Callers of a service that call until they are refused."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._ask: Any = channel.unary_unary(METHOD)
        self._numbers = itertools.count()
        self.answered: set[str] = set()
        self.refused: Counter[grpc.StatusCode] = Counter()

    async def ask_until_refused(self) -> None:
        while True:
            name = f"call-{next(self._numbers)}"
            try:
                await self._ask(REQUEST, metadata=((REQUEST_ID_KEY, name),), timeout=PATIENCE)
            except grpc.aio.AioRpcError as error:
                self.refused[error.code()] += 1
                return
            self.answered.add(name)


async def lost_in_a_life(service: Service, chance: random.Random, transport: str) -> tuple[int, int]:
    """Let the service serve for a moment and end; return the numbers of calls that it accepted and lost."""
    await asyncio.to_thread(service.wait_until_serving)
    async with channel_to(service.address) as channel:
        callers = Callers(channel)
        asking = asyncio.gather(*(callers.ask_until_refused() for _ in range(CALLERS)))
        await asyncio.sleep(chance.uniform(0.0, LONGEST_LIFE_SECONDS))
        service.process.send_signal(signal.SIGTERM)
        await asking
    assert await asyncio.to_thread(service.process.wait, PATIENCE) == 0
    assert set(callers.refused) <= REFUSED[transport]
    # The service logs each call that reached it; it did not accept those that it refused.
    calls = [line for line in service.events() if line["event"] == "call" and line["method"] == METHOD[1:]]
    accepted = {line["request_id"] for line in calls if line["code"] != "UNAVAILABLE"}
    assert callers.answered <= accepted
    return len(accepted), len(accepted - callers.answered)


@pytest.mark.parametrize("transport", transports())
async def test_no_accepted_call_is_lost_whenever_the_service_is_told_to_end(
    transport: str, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    chance = random.Random(8)
    accepted = lost = 0
    with running_service("predictor", ROOT / "models", tmp_path, "--log-calls", "none") as predictor:
        flags = ("--routes", f"intent-classification=predictor://{predictor.address}", "--log-calls", "all")
        for number in range(0, TERMINATIONS, AT_ONCE):
            folder = tmp_path / str(number)
            folder.mkdir()
            services = [start("frontend", ROOT / "models", folder, *flags, transport=transport) for _ in range(AT_ONCE)]
            try:
                for one, of_it in await asyncio.gather(
                    *(lost_in_a_life(service, chance, transport) for service in services)
                ):
                    accepted, lost = accepted + one, lost + of_it
            finally:
                for service in services:
                    service.kill()

    figure(f"{TERMINATIONS} SIGTERMs ({transport}): {lost} of {accepted} accepted calls lost")
    assert accepted
    assert lost == 0
