"""Several predictors behind one frontend: each model has its replica, and the loss of a replica costs no call."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import pytest

from intent_serving_client.channels import open_channel
from serving.client import AsyncIntentClient, IntentClient, ManagementClient, Prediction, Query
from serving.domain.errors import DeadlineExceeded, ServingError
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.residency_client import ask_residency
from tests.builders import PATIENCE, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import TRANSPORT, Service, start, transports

MODELS = [f"tenant-{number}" for number in range(36)]
WORKERS = 12
DOCUMENT = "please freeze my account"


@dataclass
class Replicas:
    """A frontend with three predictors."""

    frontend: Service
    predictors: list[Service]
    start_again: Callable[[int], Service]
    """Function that starts the predictor of a place, which is its index."""

    def held(self) -> list[set[str]]:
        """Return the models in the memory of each predictor."""
        return [held_by(predictor) for predictor in self.predictors]

    def replace(self, place: int) -> Service:
        """Start another predictor in the place of one that has ended, and wait until it serves."""
        new = self.predictors[place] = self.start_again(place)
        new.wait_until_serving()
        return new


def held_by(predictor: Service) -> set[str]:
    return {model.id for model in ask_residency(predictor.address).models}


@contextmanager
def replicas(volume: Path, logs: Path, *flags: str, transport: str = TRANSPORT) -> Iterator[Replicas]:
    for name in MODELS:
        shutil.copytree(ROOT / "models" / "clinc150-banking", volume / name)
    started: list[Service] = []
    port = free_port()

    def predictor(place: int) -> Service:
        # Addresses that no caller on this machine uses as its own, so that a restarted predictor finds its port free.
        host = f"127.0.0.{place + 2}"
        service = start("predictor", volume, logs, "--host", host, *flags, port=port, transport="grpcio")
        service.address = f"{host}:{port}"
        started.append(service)
        return service

    try:
        predictors = [predictor(place) for place in range(3)]
        for each in predictors:
            each.wait_until_serving()
        routes = "intent-classification=predictor://" + ",".join(each.address for each in predictors)
        started.append(start("frontend", volume, logs, "--routes", routes, transport=transport))
        frontend = started[-1]
        frontend.wait_until_serving()
        yield Replicas(frontend, predictors, predictor)
    finally:
        for service in reversed(started):
            service.signal_all(signal.SIGCONT)
            service.kill()


@dataclass
class Load:
    """Calls over all models by several workers, each of which makes one call after another."""

    answered: int = 0
    asking: Counter[str] = field(default_factory=Counter)
    """Number of calls in flight for each model."""
    failures: list[ServingError] = field(default_factory=list)
    ended: bool = False

    async def work(self, client: AsyncIntentClient, number: int) -> None:
        while not self.ended:
            number += WORKERS + 1
            name = MODELS[number % len(MODELS)]
            self.asking[name] += 1
            try:
                await client.predict(name, DOCUMENT)
            except ServingError as error:
                self.failures.append(error)
            self.asking[name] -= 1
            self.answered += 1

    async def goes_on(self, calls: int = 10 * len(MODELS)) -> None:
        """Return once ``calls`` more calls have been answered, which covers every model several times."""
        wanted = self.answered + calls
        await becomes(lambda: self.answered >= wanted)


@asynccontextmanager
async def load(frontend: Service) -> AsyncIterator[Load]:
    under = Load()
    async with AsyncIntentClient(frontend.address, timeout=PATIENCE) as client:
        workers = [asyncio.ensure_future(under.work(client, number)) for number in range(WORKERS)]
        try:
            await under.goes_on()
            yield under
        finally:
            under.ended = True
            await asyncio.gather(*workers)


async def becomes(true: Callable[[], bool]) -> None:
    given_up = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(true):
        assert time.monotonic() < given_up, "it has not become true"
        await asyncio.sleep(0.02)


def assert_each_model_is_held_once(held: list[set[str]]) -> None:
    assert not any(one & other for one, other in combinations(held, 2))
    assert set().union(*held) == set(MODELS)


@pytest.mark.parametrize("transport", transports())
def test_a_model_is_in_the_memory_of_one_replica_however_it_is_asked_for(
    volume: Path, tmp_path: Path, transport: str
) -> None:
    with replicas(volume, tmp_path, transport=transport) as three, IntentClient(three.frontend.address) as client:
        for _ in range(2):
            for name in MODELS:
                assert client.predict(name, DOCUMENT).label
        outcomes = client.predict_batch([Query(name, DOCUMENT) for name in [*MODELS, "no-such-model"]])
        assert [outcome.model_id for outcome in outcomes[:-1] if isinstance(outcome, Prediction)] == MODELS
        assert isinstance(outcomes[-1], ServingError)

        held = three.held()
        assert all(held)
        assert_each_model_is_held_once(held)


async def test_a_replica_that_is_killed_under_load_fails_no_call_and_only_its_models_move(
    volume: Path, tmp_path: Path
) -> None:
    with replicas(volume, tmp_path) as three:
        async with load(three.frontend) as calls:
            before = three.held()
            assert_each_model_is_held_once(before)
            killed, *others = three.predictors

            # Suspend the predictor first, so that calls to it are in flight when it dies.
            killed.signal_all(signal.SIGSTOP)
            await becomes(lambda: sum(calls.asking[name] for name in before[0]) >= WORKERS // 2)
            killed.kill()
            await calls.goes_on()
            after = [held_by(other) for other in others]
            assert_each_model_is_held_once(after)
            assert [mine - more for mine, more in zip(before[1:], after, strict=True)] == [set(), set()]

            back = await asyncio.to_thread(three.replace, 0)
            await becomes(lambda: held_by(back) == before[0])
        assert calls.failures == []


async def test_a_rolling_restart_under_load_fails_no_call(volume: Path, tmp_path: Path) -> None:
    with replicas(volume, tmp_path) as three:
        async with load(three.frontend) as calls:
            before = three.held()
            for place, predictor in enumerate(list(three.predictors)):
                assert await asyncio.to_thread(predictor.stop) == 0
                await asyncio.to_thread(three.replace, place)
                await calls.goes_on()
            await becomes(lambda: all(mine <= now for mine, now in zip(before, three.held(), strict=True)))
        assert calls.failures == []


async def test_connections_that_are_renewed_under_load_fail_no_call_and_move_no_model(
    volume: Path, tmp_path: Path
) -> None:
    with replicas(volume, tmp_path, "--connection-age-seconds", "1") as three:
        async with load(three.frontend) as calls:
            before = three.held()
            await asyncio.sleep(4)
            assert three.held() == before
        assert_each_model_is_held_once(before)
        assert calls.failures == []


def test_a_replica_that_hangs_costs_deadlines_until_it_is_noticed_and_is_passed_over_then(
    volume: Path, tmp_path: Path
) -> None:
    with replicas(volume, tmp_path) as three, IntentClient(three.frontend.address) as client:
        for name in MODELS:
            client.predict(name, DOCUMENT)
        hanging, *others = three.predictors
        held = held_by(hanging)
        hanging.signal_all(signal.SIGSTOP)

        given_up = time.monotonic() + PATIENCE
        moved = False
        while not moved:
            assert time.monotonic() < given_up, "it has not been noticed"
            try:
                moved = bool(client.predict(min(held), DOCUMENT, timeout=1).label)
            except DeadlineExceeded:
                continue
        # From now on, no call for these models waits for the hanging predictor.
        for name in MODELS:
            assert client.predict(name, DOCUMENT).label
        assert held <= set().union(*(held_by(other) for other in others))

        hanging.signal_all(signal.SIGCONT)
        hits = hits_of(hanging)
        while hits_of(hanging) == hits:
            assert time.monotonic() < given_up + PATIENCE, "it has not been found again"
            client.predict(min(held), DOCUMENT)


def hits_of(predictor: Service) -> int:
    return sum(model.hits for model in ask_residency(predictor.address).models)


def test_when_no_replica_is_left_the_answer_comes_at_once(volume: Path, tmp_path: Path) -> None:
    with replicas(volume, tmp_path) as three, IntentClient(three.frontend.address, timeout=PATIENCE) as client:
        client.predict(MODELS[0], DOCUMENT)
        for predictor in three.predictors:
            predictor.kill()
        with pytest.raises(ServingError, match="the predictor cannot be reached"):
            client.predict(MODELS[0], DOCUMENT)


def test_a_deleted_model_leaves_the_memory_of_every_predictor(volume: Path, tmp_path: Path) -> None:
    name = MODELS[0]
    with replicas(volume, tmp_path) as them:
        for predictor in them.predictors:
            # As on a replica that answered for the model before the others joined.
            with open_channel(predictor.address) as channel:
                pb_grpc.PredictorStub(channel).Load(pb.LoadRequest(runId=name), timeout=PATIENCE)
        assert them.held() == [{name}] * 3
        with ManagementClient(them.frontend.address) as client:
            client.delete(name, force=True)
        assert them.held() == [set()] * 3
