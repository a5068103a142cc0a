"""Load from one Python client on uvloop, to measure what the client costs. Prints the figures as JSON.

``python -m ... CLIENT ADDRESS IN_FLIGHT SECONDS``. The label of every answer is checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import grpc
import uvloop

from benchmarks.process_figures import memory_mebibytes
from benchmarks.systems.base import check_label
from benchmarks.workload import DOCUMENT, LABEL, MODEL_ID
from serving.client import AsyncIntentClient
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

Ask = Callable[[], Awaitable[str]]
"""Makes one call and returns the label."""

_WARM_UP_SECONDS: Final = 0.5
_TIMEOUT_SECONDS: Final = 30.0


@asynccontextmanager
async def _intent_client(address: str) -> AsyncIterator[Ask]:
    async with AsyncIntentClient(address, timeout=_TIMEOUT_SECONDS) as client:

        async def ask() -> str:
            return (await client.predict(MODEL_ID, DOCUMENT)).label

        yield ask


@asynccontextmanager
async def _grpc_stub(address: str) -> AsyncIterator[Ask]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.PredictionServiceStub(channel)

        async def ask() -> str:
            request = pb.PredictRequest(runId=MODEL_ID, document=DOCUMENT)
            answer: pb.PredictResponse = await stub.Predict(request, timeout=_TIMEOUT_SECONDS)
            return answer.label

        yield ask


CLIENTS: Final[Mapping[str, Callable[[str], AbstractAsyncContextManager[Ask]]]] = {
    "AsyncIntentClient": _intent_client,
    "grpc.aio": _grpc_stub,
}


async def _load(ask: Ask, in_flight: int, seconds: float) -> list[int]:
    """Return the microseconds of each call."""
    times: list[int] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            check_label(await ask(), LABEL)
            times.append(round(1e6 * (time.perf_counter() - began)))

    async with asyncio.TaskGroup() as callers:
        for _ in range(in_flight):
            callers.create_task(caller())
    return times


async def _main(client: str, address: str, in_flight: int, seconds: float) -> None:
    async with CLIENTS[client](address) as ask:
        await _load(ask, in_flight, _WARM_UP_SECONDS)
        began, processor_began = time.perf_counter(), time.process_time()
        times = await _load(ask, in_flight, seconds)
        figures = {
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - processor_began,
            "memory_mebibytes": memory_mebibytes([os.getpid()]),
            "microseconds": times,
        }
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
