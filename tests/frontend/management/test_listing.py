from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from serving.call.identity import Identity, Right
from serving.stubs import model_service_pb2 as pb
from tests.builders import publish
from tests.frontend.management.model_service import model_service, versions


async def names_of(stub: Any, **request: Any) -> list[list[str]]:
    """Return the names on each page."""
    pages: list[list[str]] = []
    token = ""
    while True:
        page = await stub.ListModels(pb.ListModelsRequest(page_token=token, **request))
        pages.append([model.name for model in page.models])
        token = page.next_page_token
        if not token:
            return pages


@pytest.mark.slow
async def test_two_thousand_names_come_in_pages_each_once(tmp_path: Path) -> None:
    for number in range(2000):
        folder = tmp_path / f"model-{number:04}"
        folder.mkdir()
        (folder / "manifest.json").write_text('{"Algorithm": "intent-classification"}')
    async with model_service(tmp_path) as running:
        pages = await names_of(running.stub, page_size=300)
        assert [len(page) for page in pages] == [300] * 6 + [200]
        assert [name for page in pages for name in page] == [f"model-{number:04}" for number in range(2000)]
        assert len((await names_of(running.stub))[0]) == 100


async def test_a_page_goes_on_behind_a_name_that_is_gone_meanwhile(tmp_path: Path) -> None:
    for name in "abcd":
        publish(tmp_path, name)
    async with model_service(tmp_path) as running:
        first = await running.stub.ListModels(pb.ListModelsRequest(page_size=2))
        (tmp_path / "b").rename(tmp_path / ".gone")
        publish(tmp_path, "aa")
        rest = await running.stub.ListModels(pb.ListModelsRequest(page_size=2, page_token=first.next_page_token))
    assert [model.name for model in (*first.models, *rest.models)] == ["a", "b", "c", "d"]


async def test_filters_choose_by_prefix_algorithm_and_release(tmp_path: Path) -> None:
    publish(tmp_path, "bank-flat")
    publish(tmp_path, "bank-other", Algorithm="another")
    versions(tmp_path, "bank-bot", "1", "2")
    versions(tmp_path, "travel-bot", "1")
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bank-bot", version="2"))
        assert await names_of(running.stub, prefix="bank-") == [["bank-bot", "bank-flat", "bank-other"]]
        assert await names_of(running.stub, algorithm="another") == [["bank-other"]]
        assert await names_of(running.stub, released=True) == [["bank-bot"]]
        assert await names_of(running.stub, released=False) == [["bank-flat", "bank-other", "travel-bot"]]


async def test_a_filter_that_fits_nothing_ends_pages_early_and_says_where_to_go_on(tmp_path: Path) -> None:
    for name in "abcde":
        publish(tmp_path, name, Algorithm="another" if name == "e" else "intent-classification")
    async with model_service(tmp_path, most_examined=2) as running:
        assert await names_of(running.stub, algorithm="another") == [[], [], ["e"]]


async def test_a_summary_tells_what_is_live_and_what_is_wrong(tmp_path: Path) -> None:
    publish(tmp_path, "broken", classes={"1": "a"})
    publish(tmp_path, "half", files={"model.pth": b"weights"})
    versions(tmp_path, "bot", "1", "2", ModelVersion="7")
    versions(tmp_path, "new", "1")
    (tmp_path / "no-model").mkdir()
    (tmp_path / "README.md").touch()
    async with model_service(tmp_path) as running:
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="1"))
        await running.stub.Release(pb.ReleaseRequest(name="bot", version="2", role=pb.CANARY, share=0.25))
        page = await running.stub.ListModels(pb.ListModelsRequest())
    bot, broken, half, new = page.models
    assert (bot.stable, bot.canary, bot.canary_share, bot.revision) == ("1", "2", 0.25, 2)
    assert (list(bot.versions), bot.model_version, bot.labels, bot.problem) == (["1", "2"], "7", 2, "")
    assert bot.bytes > 0
    assert "classes" in broken.problem
    assert "vocab.pth" in half.problem
    assert (list(new.versions), new.stable) == (["1"], "")
    assert "released" in new.problem


async def test_callers_see_the_models_that_they_may_use_and_no_others(tmp_path: Path) -> None:
    for name in ("bank-a", "bank-b", "travel"):
        publish(tmp_path, name)
    identity = Identity("bank", frozenset({Right.PREDICT}), ("bank-*",))
    async with model_service(tmp_path, identity) as running:
        assert await names_of(running.stub, page_size=1) == [["bank-a"], ["bank-b"]]


@pytest.mark.parametrize("request_", [{"page_token": "!"}, {"page_token": "Li4"}, {"page_size": 1001}])
async def test_a_page_that_is_none_is_refused(tmp_path: Path, request_: dict[str, Any]) -> None:
    async with model_service(tmp_path) as running:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await running.stub.ListModels(pb.ListModelsRequest(**request_))
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
