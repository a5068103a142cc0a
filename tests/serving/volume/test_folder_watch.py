from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from serving.volume import model_folder
from serving.volume.folder_watch import ModelFolderWatch
from tests.builders import PATIENCE
from tests.conftest import ROOT
from tests.fakes.gate import Gate

GONE = ("error", "the model folder cannot be read; only models in memory are answered")
BACK = ("info", "the model folder can be read again")


@pytest.fixture(autouse=True)
def events() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(root: Path) -> ModelFolderWatch:
    return ModelFolderWatch(root, patience_seconds=PATIENCE)


def told(events: list[Any]) -> list[tuple[str, str]]:
    return [(event["log_level"], event["event"]) for event in events]


async def test_a_folder_that_stays_is_not_mentioned(watch: ModelFolderWatch, events: list[Any]) -> None:
    assert not watch.is_readable
    for _ in range(3):
        await watch.look()
        assert watch.is_readable
    assert events == []


async def test_a_folder_that_vanishes_is_logged_once_and_once_more_when_it_is_back(
    watch: ModelFolderWatch, root: Path, events: list[Any]
) -> None:
    await watch.look()
    for _ in range(2):
        shutil.rmtree(root)
        for _ in range(3):
            await watch.look()
            assert not watch.is_readable
        root.mkdir()
        for _ in range(3):
            await watch.look()
            assert watch.is_readable
    assert told(events) == [GONE, BACK, GONE, BACK]
    assert (events[0]["folder"], events[0]["reason"]) == (str(root), "No such file or directory")


async def test_a_folder_that_cannot_be_read_at_the_start_is_logged_and_waited_for(
    watch: ModelFolderWatch, root: Path, events: list[Any]
) -> None:
    root.rmdir()
    waiting = asyncio.ensure_future(watch.wait_until_readable())
    await watch.look()
    assert told(events) == [GONE]
    assert not waiting.done()
    root.mkdir()
    await watch.look()
    await asyncio.wait_for(waiting, PATIENCE)


async def test_a_folder_that_does_not_answer_cannot_be_read(
    root: Path, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    gate.shut()
    monkeypatch.setattr(model_folder, "enter", lambda _: gate.go_through())
    watch = ModelFolderWatch(root, patience_seconds=0.01)
    for _ in range(3):
        await watch.look()
        assert not watch.is_readable
    assert told(events) == [GONE]
    assert events[0]["reason"] == "no answer within 0.01 seconds"
    gate.open()
    while not watch.is_readable:
        await watch.look()
    assert told(events) == [GONE, BACK]


HANGING_SERVICE = """
import asyncio, pathlib, threading
from serving.volume import folder_watch, model_folder
model_folder.enter = lambda _: threading.Event().wait()
asyncio.run(folder_watch.ModelFolderWatch(pathlib.Path("models"), patience_seconds=0.01).look())
"""


def test_a_folder_that_does_not_answer_does_not_hold_up_the_end_of_the_service() -> None:
    subprocess.run([sys.executable, "-c", HANGING_SERVICE], cwd=ROOT, check=True, timeout=PATIENCE, capture_output=True)
