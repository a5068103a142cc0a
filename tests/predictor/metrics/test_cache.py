from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from pydantic import ByteSize

from predictor.inference.engine import InferenceEngine
from predictor.service import build_engine, collectors_of
from predictor.settings import PredictorSettings
from serving.domain.errors import ChecksumMismatch, ForbiddenPickle, ModelNotFound
from serving.domain.model_id import ModelId
from serving.domain.prediction import Query
from serving.volume.freshness.comparison import ThreadComparison
from serving.volume.model_store import WEIGHTS_FILE
from serving.volume.publishing import publish
from tests.builders import a_turn, reseal
from tests.conftest import ROOT
from tests.end_to_end.test_bad_models import pickle_that_runs_a_command
from tests.exposition import Exposition, fallen

SAMPLE = ROOT / "models" / "clinc150-banking"
ROOM_FOR_TWO = 1200 << 10


class Bench:
    """A predictor's engine over a volume of copies of a sample model."""

    def __init__(self, volume: Path, engine: InferenceEngine, settings: PredictorSettings) -> None:
        self.volume = volume
        self.engine = engine
        self._collectors = collectors_of(engine, settings)

    @property
    def told(self) -> Exposition:
        return Exposition.of(*self._collectors)

    async def ask(self, *names: str) -> None:
        for name in names:
            await self.engine.predict(Query(name, "what is my balance"))

    def publish(self, *names: str, replace: bool = False) -> None:
        for name in names:
            publish(SAMPLE, self.volume, ModelId(name), replace=replace)

    def spoil(self, name: str) -> None:
        """Replace the weights of a model atomically with garbage."""
        staged = self.volume / f".{name}"
        staged.write_bytes(b"garbage")
        staged.replace(self.volume / name / WEIGHTS_FILE)


@asynccontextmanager
async def bench(tmp_path: Path, *names: str, models: Sequence[str] = ("a", "b", "c")) -> AsyncIterator[Bench]:
    settings = PredictorSettings(
        model_dir=tmp_path,
        model_memory=ByteSize(ROOM_FOR_TWO),
        freshness_seconds=0.0,
        metrics_names=",".join(names),
    )
    engine = build_engine(settings, ThreadComparison())
    it = Bench(tmp_path, engine, settings)
    it.publish(*models)
    try:
        with structlog.testing.capture_logs():
            yield it
    finally:
        await engine.close()


async def test_hits_misses_loads_and_evictions_are_told_with_their_seconds(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        before = it.told
        await it.ask("a", "a", "b", "c")
        with pytest.raises(ModelNotFound):
            await it.ask("unknown")
        told = it.told
        residents = it.engine.residency()
        assert told.value("intent_cache_bytes") == residents.bytes_held > 0
    assert (told.value("intent_cache_hits_total"), told.value("intent_cache_misses_total")) == (1, 4)
    assert (told.value("intent_cache_loads_total"), told.value("intent_cache_evictions_total")) == (3, 1)
    assert told.value("intent_cache_load_seconds_count") == told.value("intent_cache_load_wait_seconds_count") == 3
    assert told.value("intent_cache_miss_seconds_count") == 4
    assert told.value("intent_cache_miss_seconds_sum") > told.value("intent_cache_load_seconds_sum") > 0
    assert told.value("intent_cache_eviction_age_seconds_count") == 1
    assert told.value("intent_cache_models") == 2
    assert told.value("intent_cache_budget_bytes") == ROOM_FOR_TWO
    assert told.value("intent_cache_loads_waiting") == 0
    assert fallen(before, told) == []


async def test_loads_that_wait_are_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        callers = [asyncio.ensure_future(it.ask(name)) for name in ("a", "b", "c")]
        await a_turn(2)
        assert it.told.value("intent_cache_loads_waiting") == 3
        await asyncio.gather(*callers)
        assert it.told.value("intent_cache_loads_waiting") == 0


async def test_a_bad_copy_in_the_place_of_a_good_one_is_counted_once_and_the_old_one_serves_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        await it.ask("a")
        it.spoil("a")
        # The copy may still be arriving until it has been unchanged for a while.
        while not it.told.value("intent_replacements_refused_total"):
            await it.ask("a")
            await asyncio.sleep(0.01)
        for _ in range(3):
            await it.ask("a")
        told = it.told
        assert told.value("intent_replacements_refused_total") == 1
        # The file does not have the checksum in the manifest.
        failures = told.values("intent_cache_failures_total")
        assert {reason: count for reason, count in failures.items() if count} == {("checksum_mismatch",): 1}
        assert failures["forbidden_pickle",] == 0
        assert told.value("intent_cache_models") == 1
        it.publish("a", replace=True)
        await it.ask("a")
        assert it.told.value("intent_replacements_refused_total") == 1
        assert it.told.value("intent_cache_loads_total") == 2


async def test_a_pickle_that_asks_for_code_is_counted_by_its_reason(tmp_path: Path) -> None:
    async with bench(tmp_path) as it:
        folder = tmp_path / "bad"
        shutil.copytree(SAMPLE, folder)
        pickle_that_runs_a_command(WEIGHTS_FILE)(folder)
        reseal(folder)
        with pytest.raises(ForbiddenPickle):
            await it.ask("bad")
        assert it.told.value("intent_cache_failures_total", reason="forbidden_pickle") == 1
        assert it.told.value("intent_replacements_refused_total") == 0


async def test_names_of_modelmesh_tell_the_same_in_its_units(tmp_path: Path) -> None:
    async with bench(tmp_path, "modelmesh") as it:
        await it.ask("a", "b", "c")
        it.spoil("b")
        it.engine.unload("b")
        with pytest.raises(ChecksumMismatch):
            await it.ask("b")
        told = it.told
    for theirs, ours in (
        ("modelmesh_instance_models_total", "intent_cache_models"),
        ("modelmesh_models_loaded_total", "intent_cache_models"),
        ("modelmesh_instance_used_bytes", "intent_cache_bytes"),
        ("modelmesh_instance_capacity_bytes", "intent_cache_budget_bytes"),
        ("modelmesh_loadmodel_milliseconds_count", "intent_cache_loads_total"),
        ("modelmesh_age_at_eviction_milliseconds_count", "intent_cache_evictions_total"),
        ("modelmesh_cache_miss_milliseconds_count", "intent_cache_misses_total"),
    ):
        assert told.value(theirs) == told.value(ours) > 0, theirs
    for theirs, ours in (
        ("modelmesh_loadmodel_milliseconds_sum", "intent_cache_load_seconds_sum"),
        ("modelmesh_loading_queue_delay_milliseconds_sum", "intent_cache_load_wait_seconds_sum"),
    ):
        assert told.value(theirs) == pytest.approx(1000 * told.value(ours))
    assert told.value("modelmesh_loadmodel_failure") == 1
    used, capacity = told.value("intent_cache_bytes"), told.value("intent_cache_budget_bytes")
    assert told.value("modelmesh_instance_used_bps") == 10_000 * used // capacity
