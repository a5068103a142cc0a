"""Services with several workers: one service to its callers, whichever worker they reach, and whichever dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from intent_serving_client.metadata import REQUEST_ID_KEY
from serving.stubs import model_service_pb2 as management
from serving.stubs import prediction_service_pb2 as pb
from tests.access import a_key, identity_of, write_access
from tests.builders import PATIENCE, channel_to, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import Service, running_service, start, transports, wait_until_ended
from tests.exposition import Exposition

LIVES = int(os.environ.get("INTENT_TEST_TERMINATIONS", "20")) // 5 or 1
"""Number of services that are terminated under load."""

pytestmark = [pytest.mark.timeout(240 + 30 * LIVES)]

WORKERS = 3
CONNECTIONS = 12
"""Number of connections, enough for each worker to have some."""
MODELS = ROOT / "models"
SAMPLE = MODELS / "clinc150-banking"
PREDICT = "/prediction.PredictionService/Predict"
RELEASE = "/prediction.ModelService/Release"
LONGEST_LIFE_SECONDS = 0.5
REFUSED = {
    "http2": {grpc.StatusCode.UNAVAILABLE},
    # grpcio cancels calls that cross its GOAWAY on the wire.
    "grpcio": {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED},
}
NUMBERS = itertools.count()


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def workers(
    models: Path, logs: Path, transport: str, *flags: str, name: str = "model_service", count: int = WORKERS
) -> Iterator[Service]:
    """Run one service with several workers; yield it once all are ready, and end it after the block."""
    service = start(name, models, logs, "--workers", str(count), "--log-calls", "all", *flags, transport=transport)
    family = service.family()
    try:
        service.wait_until_logged("ready")
        family = service.family()
        yield service
    finally:
        family = [*family, *service.family()]
        service.kill()
        wait_until_ended(family)


class Connection:
    """A caller with its own connection, which one worker serves."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self.answered: list[str] = []
        """Request ids of answered calls."""
        self.failed: Counter[grpc.StatusCode] = Counter()

    async def ask(self, model: str = "clinc150", *, key: str = "", token: str = "") -> pb.PredictResponse:
        """Return an answer, or raise grpc.aio.AioRpcError."""
        request = pb.PredictRequest(runId=model, document="make a 10 minute timer", key=key)
        name = f"call-{next(NUMBERS)}"
        metadata = [(REQUEST_ID_KEY, name), *([("authorization", f"Bearer {token}")] if token else [])]
        call = self._channel.unary_unary(PREDICT, pb.PredictRequest.SerializeToString, pb.PredictResponse.FromString)
        try:
            answer: pb.PredictResponse = await call(request, metadata=metadata, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            self.failed[error.code()] += 1
            raise
        self.answered.append(name)
        return answer

    async def ask_until(self, ending: asyncio.Event) -> None:
        """Call again and again, whatever fails, and leave a worker that starts its share of the processor."""
        while not ending.is_set():
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.ask()
            await asyncio.sleep(0.05)

    async def ask_until_refused(self) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            while True:
                await self.ask()

    async def code(self, **options: Any) -> grpc.StatusCode:
        """Return the status with which a call ends."""
        try:
            await self.ask(**options)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def release(self, name: str, version: str, **fields: Any) -> None:
        request = management.ReleaseRequest(name=name, version=version, **fields)
        serialize = management.ReleaseRequest.SerializeToString
        await self._channel.unary_unary(RELEASE, serialize, lambda data: data)(request, timeout=PATIENCE)


@asynccontextmanager
async def connections(address: str, count: int = CONNECTIONS) -> AsyncIterator[list[Connection]]:
    async with contextlib.AsyncExitStack() as open_ones:
        yield [Connection(await open_ones.enter_async_context(channel_to(address))) for _ in range(count)]


def calls_of(service: Service) -> dict[str, dict[str, Any]]:
    """Return the log lines of Predict calls, by request id."""
    return {line["request_id"]: line for line in service.events() if line.get("method") == PREDICT[1:]}


async def worker_of(service: Service, connection: Connection) -> int:
    """Return the number of the worker that serves the connection."""
    await connection.ask()
    name = connection.answered[-1]
    await eventually(lambda: name in calls_of(service))
    return int(calls_of(service)[name]["worker"])


async def one_for_each_worker(
    service: Service, lines: Sequence[Connection], count: int = WORKERS
) -> dict[int, Connection]:
    """Return a connection to each worker."""
    found = {await worker_of(service, line): line for line in lines}
    assert sorted(found) == list(range(count))
    return found


def restarts_of(service: Service, worker: int) -> int:
    """Return how often a worker was followed by another one that became ready."""
    # The log has a line for each call; to parse them all would keep the callers of this process waiting.
    whole, _, _ = service.log.read_text().rpartition("\n")
    ready = [json.loads(line) for line in whole.splitlines() if '"worker ready"' in line]
    return len([line for line in ready if line["worker"] == worker]) - 1


async def eventually(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    given_up = time.monotonic() + PATIENCE
    while True:
        held = holds()
        if held if isinstance(held, bool) else await held:
            return
        assert time.monotonic() < given_up
        await asyncio.sleep(0.1)


# Serving


async def test_many_connections_reach_every_worker_through_one_port(tmp_path: Path, transport: str) -> None:
    with workers(MODELS, tmp_path, transport) as service:
        async with connections(service.address, 4 * CONNECTIONS) as lines:
            found = await one_for_each_worker(service, lines)
            assert [(await line.ask()).label for line in found.values()] == ["timer"] * WORKERS
        assert service.stop() == 0


async def test_on_http2_each_worker_gets_as_many_connections_as_the_others(tmp_path: Path) -> None:
    with workers(MODELS, tmp_path, "http2") as service:
        async with connections(service.address) as lines:
            found = Counter([await worker_of(service, line) for line in lines])
            assert found == dict.fromkeys(range(WORKERS), CONNECTIONS // WORKERS)


async def test_a_frontend_of_workers_asks_its_predictor(tmp_path: Path, transport: str) -> None:
    with running_service("predictor", MODELS, tmp_path) as predictor:
        routes = f"intent-classification=predictor://{predictor.address}"
        with workers(MODELS, tmp_path, transport, "--routes", routes, name="frontend") as service:
            async with connections(service.address, 4 * CONNECTIONS) as lines:
                found = await one_for_each_worker(service, lines)
                assert [(await line.ask()).label for line in found.values()] == ["timer"] * WORKERS


async def test_workers_share_the_memory_for_models(tmp_path: Path, transport: str) -> None:
    port = free_port()
    flags = ("--metrics-port", str(port), "--model-memory", "90MB")
    with workers(MODELS, tmp_path, transport, *flags):
        assert Exposition.at(port).value("intent_cache_budget_bytes") == 90_000_000


# Dying


async def test_of_a_worker_that_is_killed_under_load_its_own_callers_alone_notice_and_it_is_back(
    tmp_path: Path, transport: str
) -> None:
    with workers(MODELS, tmp_path, transport) as service:
        async with connections(service.address, 2 * CONNECTIONS) as lines:
            of_each = {line: await worker_of(service, line) for line in lines}
            (victim,) = (each for each in service.family()[1:] if each.cmdline()[-2] == "0")
            ending = asyncio.Event()
            asking = asyncio.gather(*(line.ask_until(ending) for line in lines))
            await asyncio.sleep(0.3)
            victim.kill()
            await eventually(lambda: restarts_of(service, 0) == 1)
            before = {line: len(line.answered) for line in lines}
            await eventually(lambda: all(len(line.answered) > count for line, count in before.items()))
            ending.set()
            await asking
            for line, worker in of_each.items():
                assert not line.failed or worker == 0
                assert set(line.failed) <= {grpc.StatusCode.UNAVAILABLE}
        async with connections(service.address, 4 * CONNECTIONS) as new:
            await one_for_each_worker(service, new)


# Ending


async def lost_in_a_life(service: Service, chance: random.Random, transport: str) -> tuple[int, int]:
    """Let the service serve for a moment and end; return the numbers of calls that it accepted and lost."""
    await asyncio.to_thread(service.wait_until_logged, "ready")
    async with connections(service.address) as lines:
        asking = asyncio.gather(*(line.ask_until_refused() for line in lines for _ in range(4)))
        await asyncio.sleep(chance.uniform(0.0, LONGEST_LIFE_SECONDS))
        service.process.send_signal(signal.SIGTERM)
        await asking
    assert await asyncio.to_thread(service.process.wait, PATIENCE) == 0
    assert {code for line in lines for code in line.failed} <= REFUSED[transport]
    accepted = {name for name, line in calls_of(service).items() if line["code"] != "UNAVAILABLE"}
    answered = {name for line in lines for name in line.answered}
    assert answered <= accepted
    return len(accepted), len(accepted - answered)


@pytest.mark.slow
async def test_no_accepted_call_is_lost_whenever_workers_are_told_to_end(
    tmp_path: Path, transport: str, figure: Callable[[str], None]
) -> None:
    chance = random.Random(16)
    accepted = lost = 0
    for number in range(LIVES):
        folder = tmp_path / str(number)
        folder.mkdir()
        with workers(MODELS, folder, transport) as service:
            one, of_it = await lost_in_a_life(service, chance, transport)
            accepted, lost = accepted + one, lost + of_it
    figure(f"{LIVES} SIGTERMs of {WORKERS} workers ({transport}): {lost} of {accepted} accepted calls lost")
    assert accepted
    assert lost == 0


# Counting


async def test_metrics_tell_of_all_calls_whoever_has_answered_them_and_whoever_has_died(
    tmp_path: Path, transport: str
) -> None:
    port = free_port()
    with workers(MODELS, tmp_path, transport, "--metrics-port", str(port)) as service:

        def counted() -> float:
            return Exposition.at(port).value("intent_request_seconds_count", method=PREDICT.split(".")[1], code="OK")

        async with connections(service.address) as lines:
            await asyncio.gather(*(line.ask() for line in lines for _ in range(20)))
            asked = 20 * CONNECTIONS
            assert await asyncio.to_thread(counted) == asked
            told = Exposition.at(port)
            assert told.value("intent_documents_total") == asked
            assert told.value("intent_model_documents_total", model="clinc150") == asked
            assert told.value("intent_model_requests_total", model="clinc150") == asked
            assert told.value("intent_cache_models") == len({line["worker"] for line in calls_of(service).values()})

        service.family()[1].kill()
        await asyncio.to_thread(service.wait_until_logged, "worker ended; starting another one")
        async with connections(service.address) as lines:
            await asyncio.gather(*(line.ask() for line in lines for _ in range(5)))
        assert await asyncio.to_thread(counted) == asked + 5 * CONNECTIONS
        assert Exposition.at(port).value("intent_model_requests_total", model="clinc150") == asked + 5 * CONNECTIONS


async def test_a_quota_holds_for_all_workers_together_whichever_the_tenant_reaches(
    tmp_path: Path, transport: str
) -> None:
    rate, burst = 40.0, 100.0
    flags = ("--tenant-requests-per-second", str(rate), "--tenant-burst", str(burst))
    with workers(MODELS, tmp_path, transport, *flags) as service:
        async with connections(service.address) as lines:
            began = time.monotonic()
            codes: Counter[grpc.StatusCode] = Counter()
            while time.monotonic() - began < 2.0:
                codes.update(await asyncio.gather(*(line.code() for line in lines)))
            took = time.monotonic() - began
            reached = {line["worker"] for line in calls_of(service).values()}
            assert len(reached) > 1
            assert codes.keys() == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
            # Tolerance: one call for each further worker.
            assert burst <= codes[grpc.StatusCode.OK] <= burst + rate * took + WORKERS - 1
        # A tenant with one connection gets the whole quota.
        async with connections(service.address, 1) as (line,):
            of_one: Counter[grpc.StatusCode] = Counter()
            while not of_one[grpc.StatusCode.RESOURCE_EXHAUSTED]:
                of_one[await line.code(model="banking77")] += 1
            assert of_one[grpc.StatusCode.OK] >= burst


# Changing


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with two versions of a name that answer differently."""
    models = tmp_path / "models"
    for version in ("1", "2"):
        folder = models / "intent" / version
        shutil.copytree(SAMPLE, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["ModelVersion"] = version
        (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.copytree(MODELS / "clinc150", models / "clinc150")
    return models


async def test_a_release_changed_through_one_worker_is_soon_in_force_in_all(
    volume: Path, tmp_path: Path, transport: str
) -> None:
    with workers(volume, tmp_path, transport) as service:
        async with connections(service.address, 2 * CONNECTIONS) as lines:
            await one_for_each_worker(service, lines)
            await lines[0].release("intent", "1")

            async def all_answer_by(version: str) -> bool:
                answers = await asyncio.gather(*(line.ask("intent") for line in lines), return_exceptions=True)
                return all(isinstance(each, pb.PredictResponse) and each.model.version == version for each in answers)

            await eventually(lambda: all_answer_by("1"))
            await lines[1].release("intent", "2")
            await eventually(lambda: all_answer_by("2"))


async def test_a_canary_answers_the_same_keys_in_every_worker(volume: Path, tmp_path: Path, transport: str) -> None:
    with workers(volume, tmp_path, transport) as service:
        async with connections(service.address, 2 * CONNECTIONS) as lines:
            found = await one_for_each_worker(service, lines)
            await lines[0].release("intent", "1")
            await lines[0].release("intent", "2", role=management.CANARY, share=0.5)

            async def versions_by_key() -> set[tuple[str, ...]]:
                """Return the versions that a number of keys get, as each worker assigns them."""
                return {
                    tuple([(await line.ask("intent", key=f"key-{number}")).model.version for number in range(20)])
                    for line in found.values()
                }

            async def is_settled() -> bool:
                versions = await versions_by_key()
                return len(versions) == 1 and set(*versions) == {"1", "2"}

            await eventually(is_settled)
            assert await is_settled()


async def test_a_key_that_is_withdrawn_is_soon_refused_by_all_workers(tmp_path: Path, transport: str) -> None:
    folder = tmp_path / "access"
    access = write_access(folder, {"acme": identity_of("acme", "predict")})
    with workers(MODELS, tmp_path, transport, "--access-file", str(access)) as service:
        async with connections(service.address, 2 * CONNECTIONS) as lines:
            key = a_key("acme")
            assert {await line.code(token=key) for line in lines} == {grpc.StatusCode.OK}
            assert {line["worker"] for line in calls_of(service).values()} == set(range(WORKERS))
            write_access(folder, {"other": identity_of("other", "predict")})

            async def all_refuse() -> bool:
                codes = set(await asyncio.gather(*(line.code(token=key) for line in lines)))
                return codes == {grpc.StatusCode.UNAUTHENTICATED}

            await eventually(all_refuse)
