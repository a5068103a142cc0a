from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from serving.domain.errors import Unavailable
from tests.builders import PATIENCE
from tests.fakes.torchserve import Archive, FakeTorchServe, asking, plain, running
from tests.frontend.engines.torchserve.test_backend import label
from tests.serving.refusals import refused


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def write(file: Path, keys: dict[str, str]) -> None:
    expires = "2026-11-21T13:09:18.835057031Z"
    document = {api: {"key": key, "expiration time": expires} for api, key in keys.items()}
    file.write_text(json.dumps({**document, "API": {"key": "not-for-us"}}))


async def test_each_api_gets_its_own_key_and_new_keys_are_taken_as_they_come(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake, key_file=file) as backend:
        for number in range(3):
            fake.keys = {"inference": f"one-{number}", "management": f"other-{number}"}
            write(file, fake.keys)
            assert await label(backend, "a") == "a x"
        assert fake.asked["RegisterModel"] == 1


async def test_many_who_are_refused_read_the_file_and_are_all_answered(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake, key_file=file) as backend:
        for number in range(3):
            fake.keys = {"inference": f"one-{number}", "management": f"other-{number}"}
            write(file, fake.keys)
            answers = await asyncio.gather(*(label(backend, "a", str(index)) for index in range(32)))
            assert answers == [f"a {index}" for index in range(32)]


@pytest.mark.parametrize(
    "content", [None, "", "{}", "[]", '{"inference": {"key": "old"}, "management": {"key": "old"}}']
)
async def test_no_key_that_is_taken_is_told_until_there_is_one(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    if content is not None:
        file.write_text(content)
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake, key_file=file) as backend:
        fake.keys = {"inference": "one", "management": "other"}
        with refused(Unavailable, "key") as caught:
            await label(backend, "a")
        assert str(tmp_path) not in str(caught.value)
        write(file, fake.keys)
        assert await label(backend, "a") == "a x"


async def test_without_a_key_file_a_refusal_is_told() -> None:
    async with running(FakeTorchServe(a=Archive(plain("a")))) as fake, asking(fake) as backend:
        fake.keys = {"inference": "one", "management": "other"}
        with refused(Unavailable, "key"):
            await label(backend, "a")


async def test_it_is_not_ready_before_its_key_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    async with running(FakeTorchServe()) as fake, asking(fake, key_file=file) as backend:
        fake.keys = {"inference": "one", "management": "other"}
        waiting = asyncio.create_task(backend.wait_until_ready())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        write(file, fake.keys)
        await asyncio.wait_for(waiting, PATIENCE)
