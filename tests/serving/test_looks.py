from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.looks import BackgroundLooks
from serving.model_id import ModelId, parse_model_id
from serving.model_store import MANIFEST_FILE, MODEL_FILES, ModelStore
from tests.builders import PATIENCE


async def test_every_subject_is_looked_at_once_however_often_it_is_wanted() -> None:
    asked: list[ModelId] = []
    found: dict[str, bool] = {}
    done = asyncio.Event()

    def has_changed(model_id: ModelId, known: int) -> bool:
        asked.append(model_id)
        return known % 2 == 1

    def on_looked(subject: str, /, *, changed: bool) -> None:
        found[subject] = changed
        if len(found) == 200:
            done.set()

    with ThreadPoolExecutor(1) as pool:
        looks: BackgroundLooks[str, int] = BackgroundLooks(pool, has_changed, on_looked, 30.0)
        for _ in range(3):
            for number in range(200):
                looks.look(str(number), ModelId(str(number)), number)
        await asyncio.wait_for(done.wait(), PATIENCE)
        await looks.close()
    assert len(asked) == 200
    assert found == {str(number): number % 2 == 1 for number in range(200)}


async def test_after_one_look_another_can_be_had() -> None:
    done: asyncio.Queue[bool] = asyncio.Queue()
    with ThreadPoolExecutor(1) as pool:
        looks: BackgroundLooks[str, bool] = BackgroundLooks(
            pool, lambda _, known: known, lambda _, changed: done.put_nowait(changed), 30.0
        )
        for known in (True, False, True):
            looks.look("a", ModelId("a"), known)
            assert await asyncio.wait_for(done.get(), PATIENCE) is known
        await looks.close()


@pytest.mark.parametrize(("age", "serves", "looks"), [(0.0, True, 0), (31.0, True, 1), (61.0, False, 0)])
async def test_a_look_that_is_due_is_taken_in_the_background_and_one_that_is_overdue_comes_first(
    age: float, serves: bool, looks: int
) -> None:
    asked: list[ModelId] = []

    def unchanged(model_id: ModelId, _: int) -> bool:
        asked.append(model_id)
        return False

    with ThreadPoolExecutor(1) as pool:
        taken: BackgroundLooks[str, int] = BackgroundLooks(pool, unchanged, lambda _, changed: None, 30.0)
        assert taken.may_serve("a", ModelId("a"), 1, time.monotonic() - age) is serves
        await settled()
        await taken.close()
    assert len(asked) == looks


async def settled() -> None:
    """Wait until nothing but this task is left to do."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def test_the_cheapest_look_tells_the_same_files_from_others(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).write_text("{}")
    store, model_id = ModelStore(tmp_path), parse_model_id("a")
    files = {name: file for name, file in zip(MODEL_FILES, store.fingerprint(model_id).files, strict=True) if file}
    assert store.still_has(model_id, files)
    assert not store.still_has(parse_model_id("b"), files)
    (folder / MANIFEST_FILE).write_text("{} ")
    assert not store.still_has(model_id, files)
    (folder / MANIFEST_FILE).unlink()
    assert not store.still_has(model_id, files)
