"""The version that answers: names, versions, labels, roles, in calls and batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.call.identity import Identity, Right
from serving.domain.errors import InvalidRelease, ModelIncomplete, ModelNotFound, PermissionDenied
from serving.domain.prediction import Query
from serving.domain.releases.release import Canary, Release, Shadow
from tests.builders import a_call, publish
from tests.fakes.backend import FakeBackend
from tests.frontend.releases.running import NAME, bench, publish_versions, write_release


@pytest.fixture
def models(tmp_path: Path) -> Path:
    publish_versions(tmp_path, "v1", "v2", "v3")
    publish(tmp_path, "flat")
    return tmp_path


async def test_a_name_is_answered_by_its_stable_version(models: Path) -> None:
    write_release(models, Release(revision=1, stable="v2"))
    async with bench(models) as data_plane:
        assert await data_plane.ask() == "intent@v2"
        assert await data_plane.ask_all(NAME, "flat", NAME) == ["intent@v2", "flat", "intent@v2"]
        assert sorted(data_plane.asked()) == ["flat", "intent@v2", "intent@v2", "intent@v2"]


@pytest.mark.parametrize(
    ("selector", "version"),
    [
        ("v1", "v1"),
        ("v3", "v3"),
        ("tested", "v2"),
        ("stable", "v1"),
        ("canary", "v2"),
        ("shadow", "v3"),
    ],
)
async def test_a_version_a_label_and_a_role_can_be_asked_for(selector: str, version: str, models: Path) -> None:
    roles = {"canary": Canary(version="v2", share=0.0), "shadow": Shadow(version="v3", share=0.0)}
    write_release(models, Release.model_validate({"revision": 1, "stable": "v1", "labels": {"tested": "v2"}, **roles}))
    async with bench(models) as data_plane:
        assert await data_plane.ask(f"{NAME}@{selector}") == f"{NAME}@{version}"
        assert await data_plane.ask_all(f"{NAME}@{selector}") == [f"{NAME}@{version}"]


async def test_where_there_is_no_canary_stable_stands_for_it(models: Path) -> None:
    write_release(models, Release(revision=1, stable="v1"))
    async with bench(models) as data_plane:
        assert await data_plane.ask(f"{NAME}@canary") == "intent@v1"


async def test_a_name_without_a_release_has_versions_alone(models: Path) -> None:
    async with bench(models) as data_plane:
        with pytest.raises(ModelNotFound, match="release"):
            await data_plane.ask()
        assert await data_plane.ask(f"{NAME}@v1") == "intent@v1"
        assert await data_plane.ask_all(NAME, f"{NAME}@v3", f"{NAME}@v9") == [
            "ModelNotFound", "intent@v3", "ModelNotFound",
        ]  # fmt: skip


async def test_a_release_comes_before_a_model_in_the_names_own_folder(models: Path) -> None:
    publish(models, NAME)
    async with bench(models) as data_plane:
        assert await data_plane.ask() == "intent"
        write_release(models, Release(revision=1, stable="v1"))
        assert await data_plane.ask() == "intent@v1"
        (models / NAME / "release.json").unlink()
        assert await data_plane.ask() == "intent"


async def test_a_model_without_a_release_is_what_it_was(models: Path) -> None:
    (models / "empty").mkdir()
    async with bench(models) as data_plane:
        query = Query("flat", "x")
        await data_plane.predictions.predict(query, a_call())
        assert data_plane.engine.batches[0][0] is query, "nothing is copied"
        for name, error in (("unknown", ModelNotFound), ("empty", ModelIncomplete), ("unknown@v1", ModelNotFound)):
            with pytest.raises(error):
                await data_plane.ask(name)
        assert await data_plane.ask_all("flat", "unknown", "empty") == ["flat", "ModelNotFound", "ModelIncomplete"]


async def test_a_release_that_cannot_be_understood_is_told_and_others_go_on(models: Path) -> None:
    (models / NAME / "release.json").write_text("{")
    async with bench(models) as data_plane:
        with pytest.raises(InvalidRelease):
            await data_plane.ask()
        assert await data_plane.ask_all(NAME, "flat") == ["InvalidRelease", "flat"]


async def test_a_release_that_changes_is_followed_in_the_next_call(models: Path) -> None:
    write_release(models, Release(revision=1, stable="v1"))
    async with bench(models) as data_plane:
        for revision, version in enumerate(["v1", "v2", "v3", "v1"], start=2):
            write_release(models, Release(revision=revision, stable=version))
            assert await data_plane.ask() == f"intent@{version}"
            assert await data_plane.ask_all(NAME, NAME) == [f"intent@{version}"] * 2


async def test_who_may_ask_a_name_may_ask_its_versions_and_no_other_name(models: Path) -> None:
    write_release(models, Release(revision=1, stable="v1"))
    call = a_call()
    call.identity = Identity("somebody", frozenset({Right.PREDICT}), (NAME,))
    async with bench(models) as data_plane:
        for model_id in (NAME, f"{NAME}@v2"):
            await data_plane.predictions.predict(Query(model_id, "x"), call)
        for model_id in ("flat", "flat@v1", f"{NAME}2@v1"):
            with pytest.raises(PermissionDenied):
                await data_plane.predictions.predict(Query(model_id, "x"), call)
        asked = [query for batch in data_plane.engine.batches for query in batch]
        assert {query.caller for query in asked} == {"somebody"}


async def test_of_a_name_all_that_is_live_is_unloaded_and_of_a_version_itself(models: Path) -> None:
    canary = Canary(version="v2", share=0.5)
    write_release(models, Release(revision=1, stable="v1", canary=canary, labels={"tested": "v3"}))
    engine = FakeBackend()
    async with bench(models, engine) as data_plane:
        await data_plane.predictions.unload(NAME, a_call())
        assert engine.unloaded == ["intent@v1", "intent@v2", "intent@v3"]
        engine.unloaded.clear()
        await data_plane.predictions.unload(f"{NAME}@tested", a_call())
        await data_plane.predictions.unload("flat", a_call())
        assert engine.unloaded == ["intent@v3", "flat"]
