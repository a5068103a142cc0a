"""Faults of loading, injected into a running predictor: the status a caller gets, and the state afterwards."""

from __future__ import annotations

import asyncio
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch

from serving.client import AsyncIntentClient, IntentClient, Query
from serving.errors import DeadlineExceeded, OutOfCapacity, ServingError
from serving.residency import ask_residency
from tests.conftest import ROOT
from tests.end_to_end.processes import Stack, stack

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
LARGE_ROWS = 600_000
"""Rows of a model of about 150 MB: its load takes long enough to do something meanwhile."""


def make_large(folder: Path) -> None:
    """A model that is right and takes long to load."""
    shutil.copytree(SAMPLE, folder)
    state = torch.load(folder / "model.pth", weights_only=True)
    rows, dimensions = state["embedding.weight"].shape
    state["embedding.weight"] = torch.cat([state["embedding.weight"], torch.zeros(LARGE_ROWS - rows, dimensions)])
    torch.save(state, folder / "model.pth")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "large"
    make_large(folder)
    return folder


@pytest.fixture
def small_stack(volume: Path, tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Starts services over an empty volume with flags for the predictor; ends them behind the test."""
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
    assert (folder / "model.pth").stat().st_size < 1 << 20

    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError, match="compressed") as refusal:
        client.predict("bomb", DOCUMENT)
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION


def test_logits_that_are_not_finite_are_internal_and_counted(running: Stack) -> None:
    folder = running.models / "overflowing"
    shutil.copytree(SAMPLE, folder)
    state = torch.load(folder / "model.pth", weights_only=True)
    torch.save({name: torch.full_like(value, 1e30) for name, value in state.items()}, folder / "model.pth")
    before = ask_residency(running.predictor.address).failures.get("non_finite_logits", 0)

    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError) as refusal:
        client.predict("overflowing", DOCUMENT)

    assert refusal.value.code is grpc.StatusCode.INTERNAL
    assert "not a number" in str(refusal.value)
    assert ask_residency(running.predictor.address).failures["non_finite_logits"] == before + 1


def test_a_model_larger_than_the_budget_is_refused_and_residents_stay(
    small_stack: Callable[..., Stack], volume: Path, large: Path
) -> None:
    both = small_stack("--model-memory", "20MB")
    shutil.copytree(SAMPLE, volume / "small")
    shutil.copytree(large, volume / "large")
    with IntentClient(both.frontend.address) as client:
        client.predict("small", DOCUMENT)
        with pytest.raises(OutOfCapacity, match="alone needs more memory"):
            client.predict("large", DOCUMENT)

    assert [model.id for model in ask_residency(both.predictor.address).models] == ["small"]


async def test_a_model_is_refused_while_all_memory_is_in_use_and_served_afterwards(
    small_stack: Callable[..., Stack], volume: Path
) -> None:
    both = small_stack("--model-memory", "1200KiB")
    for name in ("used", "wanted"):
        shutil.copytree(SAMPLE, volume / name)
    grow_until_only_one_fits(volume)
    long_work = [Query("used", "what is my balance " * 10) for _ in range(4000)]
    async with AsyncIntentClient(both.frontend.address, timeout=60) as client:
        await client.predict("used", DOCUMENT)
        working = asyncio.ensure_future(client.predict_batch(long_work))
        refusals: list[str] = []
        while not working.done():
            try:
                await client.predict("wanted", DOCUMENT)
            except OutOfCapacity as error:
                refusals.append(str(error))
        assert refusals
        assert all("in use" in refusal for refusal in refusals)
        assert not any(isinstance(outcome, ServingError) for outcome in working.result())
        assert (await client.predict("wanted", DOCUMENT)).label == "balance"
    assert ask_residency(both.predictor.address).held_bytes <= 1200 << 10


def grow_until_only_one_fits(volume: Path) -> None:
    for folder in volume.iterdir():
        state = torch.load(folder / "model.pth", weights_only=True)
        rows, dimensions = state["embedding.weight"].shape
        state["embedding.weight"] = torch.cat([state["embedding.weight"], torch.zeros(2700 - rows, dimensions)])
        torch.save(state, folder / "model.pth")


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
        loading = [asyncio.ensure_future(client.predict(f"large-{number}", DOCUMENT)) for number in range(3)]
        assert (await client.predict("resident", DOCUMENT)).label == "balance"
        outcomes = await asyncio.gather(*loading, return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, OutOfCapacity)]
    assert len(refused) == 1
    assert "waiting to be loaded" in str(refused[0])


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


def test_the_service_log_tells_security_events(running: Stack) -> None:
    folder = running.models / "hostile-logged"
    shutil.copytree(SAMPLE, folder)
    (folder / "vocab.pth").write_bytes(b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93.")
    with IntentClient(running.frontend.address) as client, pytest.raises(ServingError):
        client.predict("hostile-logged", DOCUMENT)

    events = [event for event in running.predictor.events() if event["event"] == "forbidden pickle"]
    assert events
    assert json.dumps(events[-1]).count("hostile-logged") == 1
    assert "system" in events[-1]["asked_for"]
