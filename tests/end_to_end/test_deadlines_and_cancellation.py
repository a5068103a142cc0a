"""Callers that time out or leave: their queries are not executed, and what they held is released."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from serving.client import IntentClient
from serving.domain.errors import OutOfCapacity, ServingError
from serving.stubs import prediction_service_pb2 as pb
from serving.stubs import prediction_service_pb2_grpc as pb_grpc
from serving.wire.residency_client import Residency, ask_residency
from tests.builders import reseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, stack, transports
from tests.end_to_end.test_uploads import eventually
from tests.fakes.volume import FakeVolume, stack_over_fake_volume

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
TIMEOUT = 60.0

LONG_BATCH, LONG_DOCUMENT = 20_000, DOCUMENT * 40
"""Call that keeps the only inference thread busy for seconds: the number of its queries, and the document of each."""
LONGEST_MESSAGE_BYTES = 16 << 20
QUEUED_BATCH = 200
"""Number of queries in a batch that is too long for the event loop, and therefore waits for the thread."""


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def over_fake_volume(volume: Path, logs: Path, *flags: str, transport: str) -> Iterator[tuple[Stack, FakeVolume]]:
    """Run services with the model ``resident`` in memory and others that are not loaded."""
    for name in ("resident", "cold", "another"):
        shutil.copytree(SAMPLE, volume / name)
    with stack_over_fake_volume(volume, logs, "--preload", "resident", *flags, transport=transport) as both:
        yield both


def ask_frontend(channel: grpc.Channel, model_id: str, timeout: float = TIMEOUT) -> Any:
    stub: Any = pb_grpc.PredictionServiceStub(channel)
    return stub.Predict.future(pb.PredictRequest(runId=model_id, document=DOCUMENT), timeout=timeout)


def ask_batch(
    channel: grpc.Channel, model_id: str, size: int, *, document: str = DOCUMENT, timeout: float = TIMEOUT
) -> Any:
    """Call the predictor directly, because the predictor has the queue."""
    stub: Any = pb_grpc.PredictorStub(channel)
    request = pb.PredictorPredictRequest(runId=model_id, document=document)
    return stub.PredictorPredictBatch.future(
        pb.PredictorPredictBatchRequest(requests=[request] * size), timeout=timeout
    )


def test_a_call_whose_deadline_passes_while_its_model_waits_to_be_loaded_is_never_executed(
    transport: str, volume: Path, tmp_path: Path
) -> None:
    # Each execution of this model is counted, because its answer is not a number.
    shutil.copytree(SAMPLE, volume / "counted")
    state = torch.load(SAMPLE / "model.pth", weights_only=True)
    torch.save({name: torch.full_like(value, 1e30) for name, value in state.items()}, volume / "counted" / "model.pth")
    reseal(volume / "counted")
    with (
        over_fake_volume(volume, tmp_path, "--file-threads", "1", transport=transport) as (both, fake),
        grpc.insecure_channel(both.frontend.address) as channel,
        IntentClient(both.frontend.address, timeout=TIMEOUT) as client,
    ):
        fake.hold("cold")
        patient = ask_frontend(channel, "cold")
        held = fake.wait_until_held("cold")
        seconds = 0.2
        while misses(both) < 3:  # those of the preload, of the held load, and of the call that waits behind it
            assert ask_frontend(channel, "counted", seconds).code() is grpc.StatusCode.DEADLINE_EXCEEDED
            seconds *= 2
        held.release()

        assert patient.result().label == "balance"
        eventually(lambda: "counted" in resident_ids(both))
        residency = ask_residency(both.predictor.address)
        assert "non_finite_logits" not in residency.failures
        assert_nothing_is_in_use(residency)

        with pytest.raises(ServingError, match="not a number"):
            client.predict("counted", DOCUMENT)
        assert ask_residency(both.predictor.address).failures["non_finite_logits"] == 1


def passes_its_deadline(ask: Callable[[float], Any], is_queued: Callable[[], bool]) -> grpc.StatusCode:
    """Call with a short deadline, then longer ones until a call is seen in the queue; return that call's status."""
    seconds = 0.25
    while True:
        call = ask(seconds)
        seen = False
        while not (call.done() or seen):
            seen = is_queued()
        code: grpc.StatusCode = call.code()
        if seen:
            return code
        seconds *= 2


def is_cancelled(ask: Callable[[float], Any], is_queued: Callable[[], bool]) -> grpc.StatusCode:
    call = ask(TIMEOUT)
    eventually(is_queued)
    call.cancel()
    code: grpc.StatusCode = call.code()
    return code


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (passes_its_deadline, grpc.StatusCode.DEADLINE_EXCEEDED),
        (is_cancelled, grpc.StatusCode.CANCELLED),
    ],
)
def test_a_batch_whose_caller_is_gone_leaves_the_queue_and_is_never_executed(
    transport: str, volume: Path, tmp_path: Path, ends: Callable[..., grpc.StatusCode], expected: grpc.StatusCode
) -> None:
    for name in ("busy", "late"):
        shutil.copytree(SAMPLE, volume / name)
    bounds = ("--max-message-bytes", str(LONGEST_MESSAGE_BYTES), "--max-batch-size", str(LONG_BATCH))
    flags = ("--preload", "busy,late", "--inference-threads", "1", *bounds)
    with (
        stack(volume, tmp_path, predictor=flags, transport=transport) as both,
        grpc.insecure_channel(both.predictor.address) as channel,
        ExitStack() as end,
    ):
        # A single call: once one is answered, the predictor knows its pace and refuses late calls at once.
        before = ask_batch(channel, "busy", LONG_BATCH, document=LONG_DOCUMENT)
        end.callback(before.cancel)
        eventually(lambda: leases(both)["busy"] == 1)

        code = ends(
            lambda seconds: ask_batch(channel, "late", QUEUED_BATCH, timeout=seconds), lambda: leases(both)["late"] == 1
        )

        assert code is expected
        # The lease ends when the call is executed or leaves the queue. The call before it is still under way.
        state = leases(both)
        while state["late"]:
            state = leases(both)
        assert state["busy"] > 0, "the thread has not come to it"

        end.close()
        answers = ask_batch(channel, "late", QUEUED_BATCH).result().results
        assert {result.response.label for result in answers} == {"balance"}
        eventually(lambda: not any(leases(both).values()))


def test_a_caller_who_leaves_frees_its_slot_at_both_services(transport: str, volume: Path, tmp_path: Path) -> None:
    with (
        over_fake_volume(volume, tmp_path, "--max-in-flight", "1", transport=transport) as (both, fake),
        grpc.insecure_channel(both.frontend.address) as channel,
        IntentClient(both.frontend.address, timeout=TIMEOUT) as client,
    ):
        fake.hold("cold")
        leaving = ask_frontend(channel, "cold")
        held = fake.wait_until_held("cold")
        with pytest.raises(OutOfCapacity, match="calls in flight"):
            client.predict("resident", DOCUMENT)

        leaving.cancel()

        assert leaving.code() is grpc.StatusCode.CANCELLED
        assert is_admitted_soon(client)
        held.release()
        eventually(lambda: "cold" in resident_ids(both))
        assert_nothing_is_in_use(ask_residency(both.predictor.address))


def test_a_caller_who_leaves_does_not_take_the_load_along(transport: str, volume: Path, tmp_path: Path) -> None:
    with (
        over_fake_volume(volume, tmp_path, "--max-loads", "1", "--max-in-flight", "2", transport=transport) as (
            both,
            fake,
        ),
        grpc.insecure_channel(both.frontend.address) as channel,
        IntentClient(both.frontend.address, timeout=TIMEOUT) as client,
    ):
        fake.hold("cold")
        leaving = ask_frontend(channel, "cold")
        held = fake.wait_until_held("cold")
        staying = ask_frontend(channel, "cold")
        eventually(lambda: is_refused(client))

        leaving.cancel()

        assert leaving.code() is grpc.StatusCode.CANCELLED
        assert is_admitted_soon(client)
        with pytest.raises(OutOfCapacity, match="waiting to be loaded"):
            client.predict("another", DOCUMENT)
        held.release()
        assert staying.result().label == "balance"
        residency = ask_residency(both.predictor.address)
        assert residency.counters["loads"] == 2, "the resident's, and one for both callers"
        assert_nothing_is_in_use(residency)
        assert client.predict("another", DOCUMENT).label == "balance", "no load is waiting"


def is_refused(client: IntentClient) -> bool:
    """Return whether the predictor has no slot for a call that takes no time."""
    try:
        client.predict("resident", DOCUMENT)
    except OutOfCapacity:
        return True
    return False


def is_admitted_soon(client: IntentClient) -> bool:
    """Return whether a slot becomes free within as many refusals as fit into a fraction of a second."""
    return any(not is_refused(client) for _ in range(1000))


def misses(both: Stack) -> float:
    return ask_residency(both.predictor.address).counters["misses"]


def resident_ids(both: Stack) -> set[str]:
    return {model.id for model in ask_residency(both.predictor.address).models}


def leases(both: Stack) -> dict[str, int]:
    return {model.id: model.leases for model in ask_residency(both.predictor.address).models}


def assert_nothing_is_in_use(residency: Residency) -> None:
    assert [model.leases for model in residency.models] == [0] * len(residency.models)
    assert residency.held_bytes == sum(model.bytes for model in residency.models)
