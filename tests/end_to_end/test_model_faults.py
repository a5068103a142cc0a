"""Load faults, injected into a running predictor: the status that a caller gets, and the state afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch

from serving.client import AsyncIntentClient, IntentClient
from serving.domain.errors import DeadlineExceeded, OutOfCapacity, ServingError
from serving.wire.residency_client import ask_residency
from tests.builders import reseal
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, stack
from tests.end_to_end.test_deadlines_and_cancellation import ask_batch
from tests.end_to_end.test_uploads import eventually, nothing_is_set_aside, resident

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
ROOM_FOR_ONE = 1200 << 10
"""Memory for only one of two models, in bytes."""
LARGE_ROWS = 600_000
"""Rows of a model of about 150 MB, which takes long enough to load for a test to act during the load."""


def make_large(folder: Path) -> None:
    """Make a valid model that takes long to load."""
    shutil.copytree(SAMPLE, folder)
    state = torch.load(folder / "model.pth", weights_only=True)
    rows, dimensions = state["embedding.weight"].shape
    state["embedding.weight"] = torch.cat([state["embedding.weight"], torch.zeros(LARGE_ROWS - rows, dimensions)])
    torch.save(state, folder / "model.pth")
    reseal(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "large"
    make_large(folder)
    return folder


@pytest.fixture
def small_stack(volume: Path, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """A function that starts services over an empty volume with flags for the predictor; they end after the test."""
    opened = []

    def open_stack(*flags: str) -> Stack:
        context = stack(volume, tmp_path, predictor=flags)
        opened.append(context)
        return context.__enter__()

    yield open_stack
    for context in reversed(opened):
        context.__exit__(None, None, None)


def test_a_compressed_bomb_is_refused_before_it_is_inflated(running: Stack) -> None:
    folder = running.models / "bomb"
    shutil.copytree(SAMPLE, folder)
    with zipfile.ZipFile(folder / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}.")
        archive.writestr("model/data/0", b"\x00" * (256 << 20))
    reseal(folder)
    assert (folder / "model.pth").stat().st_size < 1 << 20

    before = most_memory(running)
    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError, match="compressed") as refusal:
        client.predict("bomb", DOCUMENT)
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert most_memory(running) - before < 64 << 20
    assert resident("bomb", running) is None
    eventually(lambda: nothing_is_set_aside(running))


@pytest.mark.parametrize("name", ["manifest.json", "model.pth", "vocab.pth"])
def test_an_oversize_file_is_refused_before_it_is_read(running: Stack, name: str) -> None:
    folder = running.models / f"oversize-{name.partition('.')[0]}"
    shutil.copytree(SAMPLE, folder)
    os.truncate(folder / name, 300 << 20)
    # A service that reads the whole file would show it in its memory.
    before = most_memory(running)
    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError, match="larger than") as refusal:
        client.predict(folder.name, DOCUMENT)
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert most_memory(running) - before < 64 << 20
    assert resident(folder.name, running) is None
    eventually(lambda: nothing_is_set_aside(running))


def most_memory(running: Stack) -> int:
    """Return the predictor's peak memory since its start, in bytes."""
    status = Path(f"/proc/{running.predictor.process.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))


def test_logits_that_are_not_finite_are_internal_and_counted(running: Stack) -> None:
    folder = running.models / "overflowing"
    shutil.copytree(SAMPLE, folder)
    state = torch.load(folder / "model.pth", weights_only=True)
    torch.save({name: torch.full_like(value, 1e30) for name, value in state.items()}, folder / "model.pth")
    reseal(folder)
    before = ask_residency(running.predictor.address).failures.get("non_finite_logits", 0)

    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError) as refusal:
        client.predict("overflowing", DOCUMENT)

    assert refusal.value.code is grpc.StatusCode.INTERNAL
    assert "not a number" in str(refusal.value)
    assert ask_residency(running.predictor.address).failures["non_finite_logits"] == before + 1
    assert leases("overflowing", running) == 0


def test_a_model_larger_than_the_budget_is_refused_and_residents_stay(
    small_stack: Callable[..., Stack], volume: Path, large: Path
) -> None:
    both = small_stack("--model-memory", "20MB")
    shutil.copytree(SAMPLE, volume / "small")
    shutil.copytree(large, volume / "large")
    with IntentClient(both.frontend.address) as client:
        client.predict("small", DOCUMENT)
        before = ask_residency(both.predictor.address)
        with pytest.raises(OutOfCapacity, match="alone needs more memory"):
            client.predict("large", DOCUMENT)
        after = ask_residency(both.predictor.address)
        assert client.predict("small", DOCUMENT).label == "balance"

    assert [(model.id, model.generation) for model in after.models] == [("small", before.models[0].generation)]
    assert after.held_bytes == before.held_bytes
    assert (after.counters["evictions"], after.counters["loads"]) == (0, 1)
    assert after.failures == {"model_too_large": 1}


def test_a_model_is_refused_while_all_memory_is_in_use_and_served_afterwards(
    small_stack: Callable[..., Stack], volume: Path
) -> None:
    both = small_stack("--model-memory", str(ROOM_FOR_ONE), "--inference-threads", "1")
    for name in ("used", "wanted"):
        shutil.copytree(SAMPLE, volume / name)
    grow_until_only_one_fits(volume)
    with (
        IntentClient(both.frontend.address, timeout=60) as client,
        grpc.insecure_channel(both.predictor.address) as channel,
    ):
        assert client.predict("wanted", DOCUMENT).label == "balance"
        for batches in (4, 8, 16, 32):
            assert client.predict("used", DOCUMENT).label == "balance"
            assert resident("wanted", both) is None, "one of them at a time"
            if refused_while_in_use(both, client, channel, batches):
                break
        else:
            pytest.fail("the model was not in use for as long as it takes to ask for another")
        assert client.predict("wanted", DOCUMENT).label == "balance"
    assert ask_residency(both.predictor.address).held_bytes <= ROOM_FOR_ONE
    assert nothing_is_set_aside(both)


def refused_while_in_use(both: Stack, client: IntentClient, channel: grpc.Channel, batches: int) -> bool:
    """Query one model while calls run on the other, and check both; return whether the calls ran for long enough."""
    calls = [ask_batch(channel, "used", 4000, document=DOCUMENT * 10) for _ in range(batches)]
    eventually(lambda: sum(call.done() for call in calls) + leases("used", both) == batches)
    refusal = refusal_of(client, "wanted")
    held = ask_residency(both.predictor.address).held_bytes
    labels = {result.response.label for call in calls for result in call.result().results}
    eventually(lambda: leases("used", both) == 0)
    if refusal is None:
        return False
    assert "in use" in refusal
    assert held <= ROOM_FOR_ONE
    assert labels == {"balance"}
    return True


def refusal_of(client: IntentClient, model_id: str) -> str | None:
    """Return the message with which a query is refused if there is no memory for its model; otherwise ``None``."""
    try:
        client.predict(model_id, DOCUMENT)
    except OutOfCapacity as error:
        return str(error)
    return None


def grow_until_only_one_fits(volume: Path) -> None:
    for folder in volume.iterdir():
        state = torch.load(folder / "model.pth", weights_only=True)
        rows, dimensions = state["embedding.weight"].shape
        state["embedding.weight"] = torch.cat([state["embedding.weight"], torch.zeros(2700 - rows, dimensions)])
        torch.save(state, folder / "model.pth")
        reseal(folder)


async def test_a_load_slower_than_the_deadline_ends_for_those_who_wait(
    small_stack: Callable[..., Stack], volume: Path, large: Path
) -> None:
    both = small_stack()
    shutil.copytree(large, volume / "large")
    async with AsyncIntentClient(both.frontend.address, timeout=60) as client:
        with pytest.raises(ServingError):
            await client.predict("not-there", "open the connection first")
        patient = asyncio.ensure_future(client.predict("large", DOCUMENT))
        with pytest.raises(DeadlineExceeded):
            await client.predict("large", DOCUMENT, timeout=0.02)
        assert (await patient).label == "balance"

    assert ask_residency(both.predictor.address).counters["loads"] == 1
    assert leases("large", both) == 0
    assert nothing_is_set_aside(both)


async def test_a_caller_that_leaves_does_not_end_the_load_of_the_others(
    small_stack: Callable[..., Stack], volume: Path, large: Path
) -> None:
    both = small_stack()
    shutil.copytree(large, volume / "large")
    async with AsyncIntentClient(both.frontend.address, timeout=60) as client:
        leaving = [asyncio.ensure_future(client.predict("large", DOCUMENT)) for _ in range(8)]
        staying = asyncio.ensure_future(client.predict("large", DOCUMENT))
        await asyncio.sleep(0)
        for caller in leaving:
            caller.cancel()
        assert (await staying).label == "balance"
        await asyncio.gather(*leaving, return_exceptions=True)

    residency = ask_residency(both.predictor.address)
    assert residency.counters["loads"] == 1
    assert [model.leases for model in residency.models] == [0]


async def test_loads_beyond_the_queue_are_refused_and_residents_answer_meanwhile(
    small_stack: Callable[..., Stack], volume: Path, large: Path
) -> None:
    both = small_stack("--max-loads", "2", "--file-threads", "2")
    shutil.copytree(SAMPLE, volume / "resident")
    for number in range(3):
        (volume / f"large-{number}").mkdir()
        for file in large.iterdir():
            (volume / f"large-{number}" / file.name).hardlink_to(file)
    async with AsyncIntentClient(both.frontend.address, timeout=60) as client:
        await client.predict("resident", DOCUMENT)
        before = resident("resident", both)
        loading = [asyncio.ensure_future(client.predict(f"large-{number}", DOCUMENT)) for number in range(3)]
        assert (await client.predict("resident", DOCUMENT)).label == "balance"
        outcomes = await asyncio.gather(*loading, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, OutOfCapacity)]
    assert len(refused) == 1
    assert "waiting to be loaded" in str(refused[0])
    after = resident("resident", both)
    assert before is not None
    assert after is not None
    assert after.generation == before.generation
    assert ask_residency(both.predictor.address).counters["loads"] == 3
    assert nothing_is_set_aside(both)


def test_pinned_and_preloaded_models_are_there_before_the_service_says_so(volume: Path, tmp_path: Path) -> None:
    for name in ("pinned", "preloaded", "asked"):
        shutil.copytree(SAMPLE, volume / name)
    flags = ("--pin", "pinned", "--preload", "preloaded,not-there", "--max-models", "2")
    with stack(volume, tmp_path, predictor=flags) as both, IntentClient(both.frontend.address) as client:
        assert {model.id for model in ask_residency(both.predictor.address).models} == {"pinned", "preloaded"}

        client.predict("asked", DOCUMENT)

        models = {model.id: model.pinned for model in ask_residency(both.predictor.address).models}
        assert models == {"pinned": True, "asked": False}
        assert any(event["event"] == "model not preloaded" for event in both.predictor.events())


def leases(model_id: str, both: Stack) -> int:
    """Return the number of requests that use the model now; 0 if the model is not in memory."""
    found = resident(model_id, both)
    return 0 if found is None else found.leases


def test_the_service_log_tells_security_events(running: Stack) -> None:
    folder = running.models / "hostile-logged"
    shutil.copytree(SAMPLE, folder)
    (folder / "vocab.pth").write_bytes(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93.")
    reseal(folder)
    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError):
        client.predict("hostile-logged", DOCUMENT)

    events = [event for event in running.predictor.events() if event["event"] == "forbidden pickle"]
    assert events
    assert json.dumps(events[-1]).count("hostile-logged") == 1
    assert "system" in events[-1]["requested"]
