"""Measured systems, started and called once: programs on the engine, our services with more features on, clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from benchmarks.loads.calls import Call, WrongAnswer, ask
from benchmarks.loads.clients import GRPC_STUB, INTENT_CLIENT, Client, ClientFailed, measure_client
from benchmarks.reports.results import Plan
from benchmarks.systems.all import TRANSPORTS
from benchmarks.systems.base import Running, System
from benchmarks.systems.engine import ENGINE_ECHO, TURN
from benchmarks.systems.former import Former
from benchmarks.systems.ours import Ours, ours
from peers.environments import CannotInstall
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

BESIDE = {system.name: system for system in ours(TRANSPORTS[0]) if system.name.startswith("one-process-")}


@pytest.fixture
def turn(tmp_path: Path) -> Iterator[pb_grpc.PredictionServiceStub]:
    with TURN.start(tmp_path) as running, grpc.insecure_channel(running.predict.address) as channel:
        yield pb_grpc.PredictionServiceStub(channel)


@pytest.mark.parametrize("system", [ENGINE_ECHO, TURN], ids=lambda system: system.name)
def test_a_program_on_the_engine_answers_rightly(system: System, tmp_path: Path) -> None:
    with system.start(tmp_path) as running:
        ask(running.predict)


@pytest.mark.parametrize(
    "request_of_call",
    [pb.PredictRequest(runId="../clinc150", document="x"), pb.PredictRequest(runId="clinc150", document="x" * 70_000)],
    ids=["model id", "document"],
)
def test_the_least_program_checks_what_it_is_asked(
    turn: pb_grpc.PredictionServiceStub, request_of_call: pb.PredictRequest
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        turn.Predict(request_of_call, timeout=30)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_the_least_program_gives_back_the_id_of_the_request(turn: pb_grpc.PredictionServiceStub) -> None:
    request = pb.PredictRequest(runId="clinc150", document="make a 10 minute timer")

    _, named = turn.Predict.with_call(request, timeout=30, metadata=(("x-request-id", "mine"),))
    _, nameless = turn.Predict.with_call(request, timeout=30)

    assert dict(named.trailing_metadata())["x-request-id"] == "mine"
    assert len(dict(nameless.trailing_metadata())["x-request-id"]) == 32


@pytest.mark.parametrize("name", [*BESIDE])
def test_a_service_with_something_on_answers_rightly(name: str, tmp_path: Path) -> None:
    with BESIDE[name].start(tmp_path) as running:
        ask(running.predict)
        assert running.batch is not None
        ask(running.batch)


def test_access_rules_are_in_force_while_they_are_measured(tmp_path: Path) -> None:
    with BESIDE["one-process-guarded"].start(tmp_path) as running, pytest.raises(WrongAnswer, match="UNAUTHENTICATED"):
        ask(without_credential(running))


def test_access_rules_that_let_everybody_in_are_noticed(tmp_path: Path) -> None:
    guarded = BESIDE["one-process-guarded"]

    with pytest.raises(WrongAnswer, match="not in force"), unguarded(guarded).start(tmp_path):
        pass


def test_a_commit_that_is_not_here_cannot_be_installed() -> None:
    with pytest.raises(CannotInstall, match="no-such-commit"):
        Former("no-such-commit").source()


@pytest.mark.parametrize("client", [INTENT_CLIENT, GRPC_STUB], ids=lambda client: client.name)
def test_calls_of_a_client_are_counted(client: Client) -> None:
    figures = measure_client(client, Plan(seconds=0.2, levels=(1, 64)))

    assert set(figures.levels) == {1, 64}
    assert figures.memory_mebibytes > 10
    for level in figures.levels.values():
        assert level.requests_per_second > 0
        assert level.cpu_microseconds > 0
        assert 0 < level.latency.p50 <= level.latency.p99


def test_a_client_that_fails_tells_why() -> None:
    with pytest.raises(ClientFailed, match="KeyError"):
        measure_client(replace(INTENT_CLIENT, client="nothing"), Plan(seconds=0.1, levels=(1,)))


def without_credential(running: Running) -> Call:
    return replace(running.predict, metadata=())


def unguarded(system: Ours) -> Ours:
    """Return the same system without the flags that put its access rules in force."""
    prepare = system.prepare
    return replace(system, prepare=lambda stack, folder: replace(prepare(stack, folder), flags=()))
