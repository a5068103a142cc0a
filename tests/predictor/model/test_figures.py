"""Figures that the model manager must reach. The tests print their measurements; none of them asserts a time."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.tenants import load_directly, make_tenants
from predictor.cache.memory import give_memory_back, keep_memory_returnable
from predictor.cache.model_manager import ModelManager
from predictor.cache.residency import ResidentModels
from predictor.inference.engine import InferenceEngine
from predictor.inference.traffic_registry import TrafficRegistry
from predictor.model.intent_model import IntentModel
from predictor.model.loader import FileLimits, Loader
from serving.call.tasks import Tasks
from serving.domain.errors import ServingError
from serving.domain.model_id import ModelId
from serving.domain.prediction import Prediction, Query
from serving.domain.query_limits import QueryLimits
from serving.volume.model_store import ModelStore
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

SAMPLE = ROOT / "models" / "clinc150"
SMALL_SAMPLE = ROOT / "models" / "clinc150-banking"
QUESTION = "what is my balance"
MEBIBYTE = 1 << 20


def resident_memory() -> int:
    """Return the resident memory of this process in bytes, as the kernel reports it."""
    gc.collect()
    give_memory_back()
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


def manager_over(
    volume: Path, max_bytes: int, tasks: Tasks | None = None
) -> tuple[ModelManager[IntentModel], ResidentModels[IntentModel]]:
    residents: ResidentModels[IntentModel] = ResidentModels(max_bytes=max_bytes, max_models=100_000)
    manager = ModelManager(
        Loader(ModelStore(volume), FileLimits()),
        residents,
        threads=1,
        max_loads=1024,
        freshness_seconds=3600.0,
        after_evictions=give_memory_back,
        tasks=tasks,
    )
    return manager, residents


async def test_ten_thousand_evictions_race_thirty_two_callers_without_a_failure(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    ids = make_tenants(SMALL_SAMPLE, tmp_path / "models", tenants=64, models=8)
    direct = load_directly(tmp_path / "models", ids[:8])
    size = max(model.size for model in direct.values())
    # The estimated size of a model that is not loaded yet must fit as well, beside all other loads.
    manager, residents = manager_over(tmp_path / "models", 12 * size)
    engine = InferenceEngine(manager, QueryLimits(1 << 16, 4096), TrafficRegistry(8), threads=1)
    answers = {model_id: direct[model_id].predict([Query(model_id, QUESTION)])[0] for model_id in ids[:8]}
    failures: list[object] = []
    most_held = 0

    async def caller(seed: int) -> None:
        nonlocal most_held
        chance = random.Random(seed)
        while residents.statistics.evictions < 10_000:
            number = chance.randrange(len(ids))
            try:
                answer = await engine.predict(Query(ids[number], QUESTION))
            except ServingError as error:
                failures.append(error)
                continue
            expected = answers[ids[number % 8]]
            assert isinstance(expected, Prediction)
            if answer.label != expected.label:
                failures.append(answer)
            most_held = max(most_held, residents.bytes_held)

    before = resident_memory()
    await asyncio.gather(*(caller(seed) for seed in range(32)))
    grown = resident_memory() - before
    await engine.close()

    figure(
        f"{residents.statistics.evictions} evictions, {residents.statistics.loads} loads, {len(failures)} failures;"
        f" most held {most_held} of {residents.budget} bytes; memory grew by {grown / MEBIBYTE:.1f} MiB"
    )
    assert failures == []
    assert most_held <= residents.budget
    assert grown <= 64 * MEBIBYTE + residents.budget
    assert all(resident.leases == 0 for resident in residents.residents())


async def test_a_leak_would_be_seen(tmp_path: Path) -> None:
    """Control run of the test above: models that are kept after their eviction show in the same figure."""
    ids = make_tenants(SMALL_SAMPLE, tmp_path / "models", tenants=400, models=1)
    manager, residents = manager_over(tmp_path / "models", 4 * MEBIBYTE)
    kept: list[IntentModel] = []
    before = resident_memory()
    for model_id in ids:
        with await manager.acquire(model_id) as model:
            kept.append(model)
    grown = resident_memory() - before
    await manager.close()

    assert len(kept) == len(ids)
    assert grown > 64 * MEBIBYTE + residents.budget


async def test_a_tenant_takes_little_more_memory_than_its_weights(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    keep_memory_returnable()
    ids = make_tenants(SAMPLE, tmp_path / "models", tenants=520, models=520)
    manager, _ = manager_over(tmp_path / "models", 4 << 30)
    # The first twenty models bear the one-time costs: libraries, and tokens that tenants share.
    for model_id in ids[:20]:
        (await manager.acquire(model_id)).release()
    before = resident_memory()
    for model_id in ids[20:]:
        (await manager.acquire(model_id)).release()
    grown = resident_memory() - before
    weights = float32_weights(ids[0], tmp_path / "models")
    await manager.close()

    share = grown / 500 / weights
    figure(f"{grown / 500 / 1e6:.3f} MB a tenant, {share:.2f} of its float32 weights")
    assert share <= 1.6


def float32_weights(model_id: ModelId, volume: Path) -> int:
    from predictor.model.files.tensors import read_state_dict  # noqa: PLC0415 - used here alone

    arrays = read_state_dict((volume / model_id / "model.pth").read_bytes())
    return sum(array.nbytes for array in arrays.values())


async def test_cold_callers_of_one_model_cause_one_load_a_hundred_times_out_of_a_hundred(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    ids = make_tenants(SMALL_SAMPLE, tmp_path / "models", tenants=100, models=4)
    manager, residents = manager_over(tmp_path / "models", 1 << 30)
    for number, model_id in enumerate(ids, start=1):
        leases = await asyncio.gather(*(manager.acquire(model_id) for _ in range(256)))
        for lease in leases:
            lease.release()
        assert residents.statistics.loads == number
    await manager.close()
    figure(f"256 cold callers of one model: 1 load, {residents.statistics.loads} times out of {len(ids)}")


async def test_after_a_thousand_of_each_outcome_every_slot_is_free(
    tmp_path: Path, figure: Callable[[str], None]
) -> None:
    ids = make_tenants(SMALL_SAMPLE, tmp_path / "models", tenants=50, models=2)
    (tmp_path / "models" / ids[0] / "model.pth").unlink()
    tasks = Tasks()
    manager, residents = manager_over(tmp_path / "models", 8 * MEBIBYTE, tasks)
    engine = InferenceEngine(manager, QueryLimits(1 << 16, 4096), TrafficRegistry(8), threads=1)
    chance = random.Random(5)

    async def ok() -> None:
        await engine.predict(Query(chance.choice(ids[1:]), QUESTION))

    async def cancelled() -> None:
        task = asyncio.ensure_future(engine.predict(Query(chance.choice(ids[1:]), QUESTION)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def timed_out() -> None:
        try:
            async with asyncio.timeout(0):
                await engine.predict(Query(chance.choice(ids[1:]), QUESTION))
        except TimeoutError:
            pass

    async def failed() -> None:
        with pytest.raises(ServingError):
            await engine.predict(Query(ids[0], QUESTION))

    kinds = [ok, cancelled, timed_out, failed] * 1000
    chance.shuffle(kinds)
    for start in range(0, len(kinds), 16):
        await asyncio.gather(*(kind() for kind in kinds[start : start + 16]))
    while running := [*tasks]:
        await asyncio.wait(running)

    held = sum(resident.size for resident in residents.residents())
    figure(f"1,000 each of ok, cancelled, timed out, failed: leases {leases(residents)}, held {held}")
    assert leases(residents) == 0
    assert residents.bytes_held == held
    await engine.close()


def leases(residents: ResidentModels[IntentModel]) -> int:
    return sum(resident.leases for resident in residents.residents())
