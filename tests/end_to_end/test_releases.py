"""Releases of real services: rollbacks under load, canaries, shadows, over both transports."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from serving.client import AsyncIntentClient, IntentClient, Prediction, Query
from serving.domain.errors import ModelNotFound
from serving.domain.model_id import ModelId
from serving.domain.releases.changes import released, rolled_back, with_canary
from serving.domain.releases.release import Release, Shadow
from serving.volume.model_store import ModelStore
from serving.volume.release_writing import change_release
from tests.builders import PATIENCE, free_port
from tests.conftest import ROOT
from tests.end_to_end.processes import running_service, stack, transports

SAMPLE = ROOT / "models" / "clinc150-banking"
DOCUMENT = "what is my balance"
NAME: Final = ModelId("intent")
IN_FLIGHT, CALLERS, CHANGES, CALLS, BATCH = 64, 32, 100, 100_000, 1000
FRESHNESS_SECONDS: Final = 0.25
# A release that another process wrote is found after at most twice this time, plus the time that the look itself takes.
FOUND_SECONDS: Final = 2 * FRESHNESS_SECONDS + 0.25


@pytest.fixture(params=transports())
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def add_version(volume: Path, version: str, *, other: bool = False) -> Path:
    """Add the sample as a version; ``other`` gives it its own labels, so that it answers differently."""
    folder = volume / NAME / version
    shutil.copytree(SAMPLE, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["ModelVersion"] = version
    if other:
        manifest["classes"] = {index: f"other {label}" for index, label in manifest["classes"].items()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def release(volume: Path, change: Callable[..., Release], **fields: Any) -> Release:
    """Change the release as an operator's command does, and return it."""
    return change_release(volume, NAME, lambda known: change(known, by="", at=datetime.now(UTC), **fields))


def stored(volume: Path) -> Release:
    return ModelStore(volume).read_release(NAME)


def version_of(answer: Prediction) -> str:
    return answer.model_id.partition("@")[2]


class Told(NamedTuple):
    """An answer's version, and the times of query and answer."""

    version: str
    asked_at: float
    answered_at: float


@asynccontextmanager
async def asking(address: str, callers: int) -> AsyncIterator[list[Told]]:
    """Query by the name without a break, with ``callers`` callers; the test fails if a call fails."""
    told: list[Told] = []
    ending = asyncio.Event()

    async def ask(client: AsyncIntentClient) -> None:
        while not ending.is_set():
            asked_at = time.monotonic()
            answer = await client.predict(NAME, DOCUMENT, timeout=PATIENCE)
            told.append(Told(version_of(answer), asked_at, time.monotonic()))

    async with AsyncIntentClient(address) as client, asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(ask(client))
        yield told
        ending.set()


async def answered(told: Sequence[Told], more: int) -> None:
    """Wait until ``more`` further answers have arrived."""
    wanted = len(told) + more
    async with asyncio.timeout(PATIENCE):
        while len(told) < wanted:  # noqa: ASYNC110 - callers report by appending
            await asyncio.sleep(0.01)


@pytest.mark.slow
async def test_after_a_rollback_under_load_no_call_fails_and_the_bad_version_soon_answers_no_more(
    transport: str, volume: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    for version in ("good", "bad"):
        add_version(volume, version, other=version == "bad")
    release(volume, released, version="good")
    with stack(volume, tmp_path, transport=transport) as both:
        async with asking(both.frontend.address, IN_FLIGHT) as told:
            await answered(told, 1000)
            release(volume, released, version="bad")
            await answered(told, 5000)
            commanded_at = time.monotonic()
            await asyncio.to_thread(release, volume, rolled_back)
            await asyncio.sleep(2 * FOUND_SECONDS)
            await answered(told, 1000)
    assert {each.version for each in told} == {"good", "bad"}
    last = max(each.answered_at for each in told if each.version == "bad") - commanded_at
    figure(
        f"{transport}: {IN_FLIGHT} in flight, last answer of the bad version {last * 1000:.0f} ms after the command to"
        f" roll back; {len(told)} calls, 0 failed"
    )
    assert told[-1].version == "good"


class Live(NamedTuple):
    """Period in which a version was stable."""

    version: str
    since: float
    until: float


@pytest.mark.slow
async def test_a_hundred_releases_and_rollbacks_race_callers_and_every_answer_is_of_a_version_that_was_live(
    transport: str, volume: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    versions = [f"v{number}" for number in range(CHANGES + 1)]
    for version in versions:
        add_version(volume, version)
    release(volume, released, version="v0")
    live: list[Live] = []
    with stack(volume, tmp_path, transport=transport) as both:
        async with asking(both.frontend.address, CALLERS) as told:
            await answered(told, 500)
            stable, since = "v0", 0.0
            for number in range(1, CHANGES + 1):
                before = time.monotonic()
                # Two steps forward, one step back: each release is of a version that was never live before.
                back = number % 3 == 0
                change = rolled_back if back else released
                fields = {} if back else {"version": versions[number]}
                changed = await asyncio.to_thread(release, volume, change, **fields)
                live.append(Live(stable, since, time.monotonic()))
                stable, since = changed.stable, before
                await answered(told, 50)
            await asyncio.sleep(FOUND_SECONDS)
            live.append(Live(stable, since, float("inf")))
            await answered(told, 500)
    wrong = [
        each
        for each in told
        if not any(
            period.version == each.version
            and period.since <= each.answered_at
            and each.asked_at - FOUND_SECONDS <= period.until
            for period in live
        )
    ]
    figure(
        f"{transport}: {CHANGES} releases and rollbacks raced {CALLERS} callers: {len(told)} answers of"
        f" {len({each.version for each in told})} versions, {len(wrong)} of one that was not live, 0 failed"
    )
    assert not wrong
    assert told[-1].version == stable


@pytest.mark.slow
def test_a_canary_of_a_tenth_gets_a_tenth_of_the_calls_and_a_key_always_the_same_side(
    transport: str, volume: Path, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    for version in ("v1", "v2"):
        add_version(volume, version)
    release(volume, released, version="v1")
    release(volume, with_canary, version="v2", share=0.1)
    sides: dict[str, str] = {}
    counts: dict[str, Counter[str]] = {"by a key": Counter(), "by chance": Counter()}
    with (
        stack(volume, tmp_path, transport=transport) as both,
        IntentClient(both.frontend.address, timeout=PATIENCE) as client,
    ):
        for start in range(0, CALLS, BATCH):
            keys = [str(number) for number in range(start, start + BATCH)]
            by_key = client.predict_batch([Query(NAME, DOCUMENT, key=key) for key in keys])
            sides.update(zip(keys, map(side_of, by_key), strict=True))
            counts["by a key"].update(map(side_of, by_key))
            counts["by chance"].update(map(side_of, client.predict_batch([Query(NAME, DOCUMENT)] * BATCH)))
        again = list(itertools.islice(sides, 0, CALLS, CALLS // 500))
        assert [version_of(client.predict(NAME, DOCUMENT, key=key)) for key in again] == [sides[key] for key in again]
    for how, counted in counts.items():
        figure(f"{transport}: a canary of 10 % gets {counted['v2'] / CALLS:.2%} of {CALLS} calls {how}")
        assert counted["v2"] / CALLS == pytest.approx(0.1, abs=0.01)
    assert stored(volume).canary is not None, "a good canary stays"


def side_of(outcome: object) -> str:
    assert isinstance(outcome, Prediction)
    return version_of(outcome)


async def test_a_canary_that_answers_differently_is_taken_back(transport: str, volume: Path, tmp_path: Path) -> None:
    add_version(volume, "v1")
    add_version(volume, "v2", other=True)
    release(volume, released, version="v1")
    release(volume, with_canary, version="v2", share=0.5)
    with stack(volume, tmp_path, transport=transport) as both:
        async with asking(both.frontend.address, 4) as told:
            async with asyncio.timeout(PATIENCE):
                while stored(volume).canary is not None:  # noqa: ASYNC110 - a file sends no notification
                    await asyncio.sleep(0.02)
            await answered(told, 100)
        both.frontend.wait_until_logged("canary taken back")
    assert stored(volume).history[0].action == "taken back"
    assert {each.version for each in told} == {"v1", "v2"}
    assert {each.version for each in told[-50:]} == {"v1"}


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_a_canary_that_cannot_be_loaded_harms_no_caller_and_is_taken_back(
    damage: str, transport: str, volume: Path, tmp_path: Path
) -> None:
    add_version(volume, "v1")
    release(volume, released, version="v1")
    if damage == "damaged":
        (add_version(volume, "v2") / "model.pth").write_bytes(b"nothing")
    release(volume, with_canary, version="v2", share=0.5)
    with (
        stack(volume, tmp_path, transport=transport) as both,
        IntentClient(both.frontend.address, timeout=PATIENCE) as client,
    ):
        answers = [client.predict(NAME, DOCUMENT) for _ in range(100)]
        answers += client.predict_batch([Query(NAME, DOCUMENT)] * 200)  # type: ignore[arg-type]
        assert {side_of(answer) for answer in answers} == {"v1"}
        both.frontend.wait_until_logged("canary taken back")
        deadline = time.monotonic() + PATIENCE
        while stored(volume).canary is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_answers_of_a_shadow_are_compared_and_reach_nobody(transport: str, volume: Path, tmp_path: Path) -> None:
    add_version(volume, "v1")
    add_version(volume, "v2", other=True)
    (volume / NAME / "release.json").write_text(Release(revision=1, stable="v1", shadow=Shadow(version="v2")).to_json())
    port = free_port()
    with (
        stack(volume, tmp_path, frontend=("--metrics-port", str(port)), transport=transport) as both,
        IntentClient(both.frontend.address, timeout=PATIENCE) as client,
    ):
        answers = [client.predict(NAME, DOCUMENT) for _ in range(20)]
        answers += client.predict_batch([Query(NAME, DOCUMENT)] * 30)  # type: ignore[arg-type]
        assert {(answer.label, version_of(answer)) for answer in answers} == {("balance", "v1")}
        labels = f'{{model="{NAME}",role="shadow",version="v2"}}'
        deadline = time.monotonic() + PATIENCE
        while metric(port, f"intent_release_compared_total{labels}") < 50:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert metric(port, f"intent_release_agreed_total{labels}") == 0
        assert metric(port, f"intent_release_answers_total{labels}") == 50
        assert metric(port, f'intent_release_revision{{model="{NAME}"}}') == 1


def metric(port: int, series: str) -> float:
    """Return the value of a series; 0 if it is missing."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{series} ")), 0.0)


def test_one_process_has_releases_too(transport: str, volume: Path, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        add_version(volume, version)
    with (
        running_service("model_service", volume, tmp_path, transport=transport) as service,
        IntentClient(service.address, timeout=PATIENCE) as client,
    ):
        with pytest.raises(ModelNotFound):
            client.predict(NAME, DOCUMENT)
        assert version_of(client.predict(f"{NAME}@v2", DOCUMENT)) == "v2"
        release(volume, released, version="v1")
        deadline = time.monotonic() + PATIENCE
        while not answers_by_name(client):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert version_of(client.predict(NAME, DOCUMENT)) == "v1"
        assert client.explain(NAME, DOCUMENT).explanation is not None


def answers_by_name(client: IntentClient) -> bool:
    try:
        client.predict(NAME, DOCUMENT)
    except ModelNotFound:
        return False
    return True
