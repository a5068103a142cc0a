"""Callers that query a stack continuously while a test disturbs it, and record the outcomes."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

DOCUMENT: Final = "make a 10 minute timer"

RETRIES: Final[Mapping[str, Any]] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
"""Retry policy that gRPC's guide to retries proposes to callers."""

ROUND_ROBIN: Final[Mapping[str, Any]] = {"loadBalancingConfig": [{"round_robin": {}}]}

_ENOUGH_SECONDS: Final = 60.0


def channel_to(addresses: Sequence[str], config: Mapping[str, Any] | None = None) -> grpc.aio.Channel:
    """Return a caller's channel. A call that has reached a server is only retried if ``config`` says so."""
    options: list[tuple[str, Any]] = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.use_local_subchannel_pool", 1)]
    if config is not None:
        options.append(("grpc.service_config", json.dumps(config)))
    return grpc.aio.insecure_channel(f"ipv4:{','.join(addresses)}", options=options)


@dataclass
class Told:
    """Outcomes of the calls."""

    answers: int = 0
    wrong: list[str] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return f"{self.answers} answers, {self.failures.total()} failed calls {dict(self.failures) or ''}".strip()


class Callers:
    """Callers of a stack.

    Args:
        channel: channel that the callers use.
        model_ids: models that they query.
        callers: number of callers, each with one call in flight.
        timeout: timeout of a call, in seconds.
        predictors: whether the channel leads to predictors instead of frontends.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        model_ids: Sequence[str],
        *,
        callers: int = 64,
        timeout: float = 10.0,
        predictors: bool = False,
    ) -> None:
        if predictors:
            self._ask: Any = pb_grpc.PredictorStub(channel).PredictorPredict
        else:
            self._ask = pb_grpc.PredictionServiceStub(channel).Predict
        self._request = pb.PredictorPredictRequest if predictors else pb.PredictRequest
        self._model_ids = model_ids
        self._callers = callers
        self._timeout = timeout

    async def ask_each(self, *, times: int = 1) -> Told:
        """Query every model ``times`` times, in random order; return the outcomes."""
        questions = list(self._model_ids) * times
        random.Random(1).shuffle(questions)
        told = Told()
        left = iter(questions)

        async def caller() -> None:
            for model_id in left:
                await self._ask_for(model_id, told)

        await asyncio.gather(*(caller() for _ in range(self._callers)))
        return told

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Told]:
        """Query models at random throughout the block; the outcomes are complete after it."""
        told = Told()
        ended = asyncio.Event()
        chance = random.Random(2)

        async def caller() -> None:
            while not ended.is_set():
                await self._ask_for(chance.choice(self._model_ids), told)

        asking = asyncio.gather(*(caller() for _ in range(self._callers)))
        try:
            yield told
        finally:
            ended.set()
            await asking

    async def _ask_for(self, model_id: str, told: Told) -> None:
        request = self._request(runId=model_id, document=DOCUMENT)
        try:
            answer = await self._ask(request, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            told.failures[f"{error.code().name}: {error.details()}"] += 1
        else:
            told.answers += 1
            if answer.model.id != model_id:
                told.wrong.append(f"{model_id} got the answer of {answer.model.id}")


async def until(condition: Callable[[], bool], what: str, seconds: float = _ENOUGH_SECONDS) -> float:
    """Wait until ``condition``, which is checked in a thread, holds; return the seconds that it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not await asyncio.to_thread(condition):
        assert loop.time() - started < seconds, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.2)
    return loop.time() - started
