"""A backend in front of several predictors: which one gets a query, which one is skipped, which queries are retried."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from frontend.engines.backend import Removed
from frontend.engines.predictor.backend import PredictorBackend
from serving.domain.errors import DeadlineExceeded, ModelNotFound, ModelPinned, OutOfCapacity, ServingError, Unavailable
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.transport.service import service
from tests.builders import PATIENCE, PREDICTOR, a_call, a_turn, free_port, host_of, server_settings
from tests.fakes.predictor import fake_predictor

MODELS = [f"model-{number}" for number in range(60)]


class Replica:
    """A fake predictor that answers with its name or refuses as a test says; it keeps the ids of queried models."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[str] = []
        self.refusals: list[ServingError] = []
        self.always: ServingError | None = None
        self.host: Any = None
        self.reached = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self, query: Query) -> str:
        self.asked.append(query.model_id)
        if not self.may_answer.is_set():
            self.reached.set()
            await self.may_answer.wait()
        if self.always is not None:
            raise self.always
        if self.refusals:
            raise self.refusals.pop()
        return self.name

    async def set_serving(self, serving: bool) -> None:
        assert self.host is not None
        await self.host.set_serving(serving)

    async def stop(self) -> None:
        assert self.host is not None
        await self.host.stop(0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class FakeNames:
    """A fake resolver, so that the addresses of a name can change from one moment to the next."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def look_up(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        await self.may_answer.wait()
        if not self.addresses:
            raise OSError(f"{host} is not known")
        return self.addresses


@pytest.fixture
def names() -> FakeNames:
    """A resolver that is consulted at every call."""
    return FakeNames()


@asynccontextmanager
async def before(
    model_dir: Path, number: int = 3, names: FakeNames | None = None
) -> AsyncIterator[tuple[PredictorBackend, dict[str, Replica]]]:
    """Yield a backend before ``number`` replicas, whose names are numbers; with ``names``, they are behind a name."""
    replicas = {str(name): Replica(str(name)) for name in range(number)}
    addresses = []
    async with AsyncExitStack() as stack:
        for replica in replicas.values():
            replica.host = host_of(server_settings(model_dir), [fake_predictor(replica.answer)])
            addresses.append(await replica.host.start())
            await replica.set_serving(True)
            stack.push_async_callback(replica.stop)
        target = addresses[0] if number == 1 else f"ipv4:{','.join(addresses)}"
        if names is None:
            backend = PredictorBackend(target, partitions=256)
        else:
            names.addresses = addresses
            backend = PredictorBackend("dns:///predictor:1", partitions=256, look_up=names.look_up, fresh_seconds=0.0)
        stack.push_async_callback(backend.close)
        yield backend, replicas


async def places_of(backend: PredictorBackend) -> dict[str, str]:
    """Return the name of the replica that answers for each model."""
    return {name: (await backend.predict(Query(name, "x"), a_call())).label for name in MODELS}


async def places_become(backend: PredictorBackend, left: set[str]) -> dict[str, str]:
    """Return the replica that answers for each model, once all replicas in ``left``, and no others, answer."""
    async with asyncio.timeout(PATIENCE):
        while set((await places_of(backend)).values()) != left:
            pass
    # The change may have happened in the middle of the last round.
    return await places_of(backend)


async def test_a_model_has_one_replica_and_every_replica_has_models(tmp_path: Path) -> None:
    async with before(tmp_path) as (backend, replicas):
        places = await places_of(backend)
        assert set(places.values()) == set(replicas)
        assert await places_of(backend) == places


async def test_a_batch_goes_to_the_replicas_of_its_models_and_keeps_its_order(tmp_path: Path) -> None:
    async with before(tmp_path) as (backend, _):
        places = await places_of(backend)
        outcomes = await backend.predict_batch([Query(name, "x") for name in MODELS], a_call())
        assert [outcome.label for outcome in outcomes if isinstance(outcome, Prediction)] == [*places.values()]


async def test_a_batch_of_models_that_go_together_is_asked_at_their_replica(tmp_path: Path) -> None:
    async with before(tmp_path) as (backend, _):
        for name, place in (await places_of(backend)).items():
            (outcome,) = await backend.predict_ready([Query(name, "x")], a_call())
            assert isinstance(outcome, Prediction)
            assert outcome.label == place


async def test_a_replica_that_refuses_its_part_of_a_batch_fails_that_part_only(tmp_path: Path) -> None:
    async with before(tmp_path) as (backend, replicas):
        places = await places_of(backend)
        replicas["0"].always = OutOfCapacity("full")
        outcomes = await backend.predict_batch([Query(name, "x") for name in MODELS], a_call())
        told = [outcome.label if isinstance(outcome, Prediction) else str(outcome) for outcome in outcomes]
        assert told == ["full" if place == "0" else place for place in places.values()]


async def test_a_replica_that_says_not_serving_is_passed_over_and_gets_its_models_back(tmp_path: Path) -> None:
    async with before(tmp_path) as (backend, replicas):
        places = await places_of(backend)
        await replicas["1"].set_serving(False)
        without = await places_become(backend, {"0", "2"})
        assert all(without[name] == place for name, place in places.items() if place != "1")
        await replicas["1"].set_serving(True)
        assert await places_become(backend, set(replicas)) == places


async def test_a_replica_that_is_gone_fails_no_call(tmp_path: Path) -> None:
    async with before(tmp_path) as (backend, replicas):
        places = await places_of(backend)
        await replicas["2"].stop()
        without = await places_of(backend)
        assert set(without.values()) == {"0", "1"}
        assert all(without[name] == place for name, place in places.items() if place != "2")


async def test_what_is_unavailable_is_asked_again_and_nothing_else_is(tmp_path: Path) -> None:
    async with before(tmp_path, 1) as (backend, replicas):
        replica = replicas["0"]
        replica.refusals = [Unavailable("ending"), Unavailable("ending")]
        assert (await backend.predict(Query("a", "x"), a_call())).label == "0"
        assert len(replica.asked) == 3

        replica.asked.clear()
        for refusal in (OutOfCapacity("full"), ModelNotFound("none"), DeadlineExceeded("late"), ServingError("bug")):
            replica.refusals = [refusal]
            with pytest.raises(type(refusal), match=str(refusal)):
                await backend.predict(Query("a", "x"), a_call())
        assert len(replica.asked) == 4


async def test_asking_again_has_a_budget(tmp_path: Path) -> None:
    async with before(tmp_path, 1) as (backend, replicas):
        replica = replicas["0"]
        replica.always = Unavailable("away")
        asked: dict[str, int] = defaultdict(int)
        for stage in ("first", "budget spent", "last"):
            replica.asked.clear()
            calls = 20 if stage != "budget spent" else 600
            refused = await asyncio.gather(
                *(backend.predict(Query("a", "x"), a_call()) for _ in range(calls)), return_exceptions=True
            )
            assert {(type(error), str(error)) for error in refused} == {(Unavailable, "away")}
            asked[stage] = len(replica.asked)
        assert asked["first"] == 20 * 4
        assert asked["last"] == 20


async def test_asking_again_ends_with_the_deadline(tmp_path: Path) -> None:
    async with before(tmp_path, 1) as (backend, replicas):
        replicas["0"].always = Unavailable("away")
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await backend.predict(Query("a", "x"), a_call(seconds=0.02))
        # On a busy machine, the deadline passes before the first attempt.
        assert len(replicas["0"].asked) < 4


async def test_when_one_of_a_name_leaves_only_its_models_move(tmp_path: Path, names: FakeNames) -> None:
    async with before(tmp_path, 4, names) as (backend, replicas):
        places = await places_of(backend)
        assert set(places.values()) == set(replicas)
        names.addresses = names.addresses[:3]
        without = await places_become(backend, {"0", "1", "2"})
        assert all(without[name] == place for name, place in places.items() if place != "3")


async def test_one_that_joins_a_name_gets_a_share_and_nothing_else_moves(tmp_path: Path, names: FakeNames) -> None:
    async with before(tmp_path, 3, names) as (backend, replicas):
        joining = names.addresses.pop()
        places = await places_become(backend, {"0", "1"})
        names.addresses = [*names.addresses, joining]
        joined = await places_become(backend, set(replicas))
        assert all(joined[name] in (place, "2") for name, place in places.items())


async def test_a_name_that_stands_for_nobody_is_unavailable_until_it_does(tmp_path: Path, names: FakeNames) -> None:
    async with before(tmp_path, 1, names) as (backend, _):
        known, names.addresses = names.addresses, []
        with pytest.raises(Unavailable, match="does not resolve to an address"):
            await backend.predict(Query("a", "x"), a_call())
        names.addresses = known
        assert (await backend.predict(Query("a", "x"), a_call())).label == "0"


async def test_replicas_are_asked_on_while_their_name_is_not_found(tmp_path: Path, names: FakeNames) -> None:
    async with before(tmp_path, 3, names) as (backend, _):
        places = await places_of(backend)
        names.addresses = []
        assert await places_of(backend) == places


async def test_what_is_no_name_at_all_is_unavailable() -> None:
    backend = PredictorBackend(f"dns:///{'x' * 64}.example:1", partitions=256)
    with pytest.raises(Unavailable, match="does not resolve to an address"):
        await backend.predict(Query("a", "x"), a_call())
    await backend.close()


async def test_a_name_is_looked_up_once_however_many_ask(tmp_path: Path, names: FakeNames) -> None:
    async with before(tmp_path, 2, names) as (backend, _):
        names.may_answer.clear()
        asking = [asyncio.create_task(backend.predict(Query(name, "x"), a_call())) for name in MODELS]
        await a_turn(5)
        asking[0].cancel()
        await a_turn()
        names.may_answer.set()
        await asyncio.gather(*asking[1:])
        assert names.asked == 1


async def test_a_call_in_flight_outlasts_the_change_of_the_others(tmp_path: Path, names: FakeNames) -> None:
    async with before(tmp_path, 2, names) as (backend, replicas):
        await places_of(backend)
        for replica in replicas.values():
            replica.may_answer.clear()
        asking = [asyncio.create_task(backend.predict(Query(name, "x"), a_call())) for name in MODELS]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(replica.reached.wait() for replica in replicas.values()))
        names.addresses = names.addresses[:1]
        await backend._replicas.stub()
        await a_turn(10)
        for replica in replicas.values():
            replica.may_answer.set()
        assert {answer.label for answer in await asyncio.gather(*asking)} == set(replicas)


class _Memory(pb_grpc.PredictorServicer):
    """A fake predictor that releases models, or refuses as ``refusals`` say."""

    def __init__(self, refusals: Mapping[str, ServingError]) -> None:
        self.unloaded: list[str] = []
        self._refusals = refusals

    async def Unload(self, request: pb.UnloadRequest, context: Any) -> pb.UnloadResponse:  # noqa: N802
        del context
        self.unloaded.append(request.runId)
        if request.runId in self._refusals:
            raise self._refusals[request.runId]
        return pb.UnloadResponse()


async def test_every_replica_lets_go_of_removed_models_whoever_answers_for_them(tmp_path: Path) -> None:
    removed = [Removed(ModelId(name), None) for name in MODELS[:3]]
    refusals = {MODELS[0]: ModelPinned("the predictor's settings keep the model in memory")}
    kind: Any = _Memory
    memories = [kind(refusals), kind({})]
    async with AsyncExitStack() as stack:
        addresses = [f"127.0.0.1:{free_port()}"]  # a replica that is down
        for memory in memories:
            unloads = service(PREDICTOR, pb_grpc.add_PredictorServicer_to_server, memory)
            host = host_of(server_settings(tmp_path), [unloads])
            addresses.append(await host.start())
            stack.push_async_callback(host.stop, 0)
        # All of the replicas are NOT_SERVING, so that no model calls go to them.
        backend = PredictorBackend(f"ipv4:{','.join(addresses)}", partitions=256)
        stack.push_async_callback(backend.close)
        with pytest.raises(Unavailable):
            await backend.forget(removed, a_call())
        assert [memory.unloaded for memory in memories] == [MODELS[:3], MODELS[:3]]
