from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from serving.domain.model_id import parse_model_id
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.comparison import PROGRAM, FileComparison, KnownFile, ProcessComparison, ThreadComparison
from serving.volume.model_store import MANIFEST_FILE, MODEL_FILES, ModelStore
from tests.builders import PATIENCE


@pytest.fixture(params=[ThreadComparison, ProcessComparison])
async def comparison(request: pytest.FixtureRequest) -> AsyncIterator[FileComparison]:
    kind: Callable[[], FileComparison] = request.param
    compared = kind()
    if isinstance(compared, ProcessComparison):
        await started(compared)
    yield compared
    await compared.close()


def processes() -> list[psutil.Process]:
    """Return the child processes that compare for this process."""
    return [child for child in psutil.Process().children() if PROGRAM in child.cmdline()]


async def started(comparison: ProcessComparison) -> psutil.Process:
    """Return the process of ``comparison`` once that process compares."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        assert await comparison.changed([[]]) == [False]
        if comparison.process_id is not None:
            return psutil.Process(comparison.process_id)
        await asyncio.sleep(0.01)
    raise AssertionError("no process has been started")


async def test_the_same_files_are_told_from_others(comparison: FileComparison, tmp_path: Path) -> None:
    store, model_id = ModelStore(tmp_path), parse_model_id("a")
    folder = tmp_path / "a"
    folder.mkdir()
    for name in MODEL_FILES:
        (folder / name).write_text("{}")
    files = dict(zip(MODEL_FILES, store.fingerprint(model_id).files, strict=True))
    known, missing = store.known_files(model_id, files), store.known_files(model_id, {"none": None})
    elsewhere = store.known_files(parse_model_id("b"), files)
    assert await comparison.changed([known, elsewhere, missing, []]) == [False, True, False, False]
    (folder / "none").touch()
    (folder / MANIFEST_FILE).write_text("{} ")
    assert await comparison.changed([missing, known]) == [True, True]
    (folder / MANIFEST_FILE).unlink()
    assert await comparison.changed([known]) == [True]


async def test_what_cannot_be_told_counts_as_changed(comparison: FileComparison, tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert await comparison.changed([[(str(loop), None)], [(str(tmp_path / ("x" * 300)), None)]]) == [True, True]


async def test_paths_are_taken_as_the_system_has_them(comparison: FileComparison, tmp_path: Path) -> None:
    path = os.fsdecode(bytes(tmp_path) + b'/\xff \n"')
    Path(path).touch()
    known: KnownFile = (path, FileIdentity.at(path))
    assert await comparison.changed([[known], [(path, None)]]) == [False, True]


async def test_many_ask_at_the_same_time(comparison: FileComparison, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.touch()
    known: KnownFile = (str(there), FileIdentity.at(there))
    asked = [[[known] if number % 3 else [(str(there), None)]] * (1 + number % 5) for number in range(50)]
    told = await asyncio.gather(*map(comparison.changed, asked))
    assert told == [[not number % 3] * (1 + number % 5) for number in range(50)]


async def test_where_the_process_has_died_a_thread_goes_on() -> None:
    comparison = ProcessComparison()
    process = await started(comparison)
    process.kill()
    for _ in range(3):
        assert await comparison.changed([[], [("/", None)]]) == [False, True]
    await comparison.close()
    assert not processes()


async def test_the_process_ends_with_its_service_and_not_before() -> None:
    comparison = ProcessComparison()
    process = await started(comparison)
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    assert await comparison.changed([[], [("/", None)]]) == [False, True]
    assert process.is_running()
    await comparison.close()
    assert not processes()


def test_the_process_ends_in_silence_where_its_service_left_without_an_answer() -> None:
    ours, its = socket.socketpair()
    with its:
        stream = its.fileno()
        process = subprocess.Popen([sys.executable, "-m", PROGRAM], stdin=stream, stdout=stream, stderr=subprocess.PIPE)
    with ours:
        ours.sendall(b"[]\n")
        assert ours.recv(100) == b"[]\n"
        process.send_signal(signal.SIGSTOP)
        ours.sendall(b"[]\n")
    process.send_signal(signal.SIGCONT)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, b"")


async def test_where_no_process_can_be_started_a_thread_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere")
    comparison = ProcessComparison()
    for _ in range(3):
        assert await comparison.changed([[], [("/", None)]]) == [False, True]
        await asyncio.sleep(0.01)
    await comparison.close()


async def test_an_answer_whose_caller_has_left_is_nobody_elses(comparison: FileComparison) -> None:
    for _ in range(3):
        leaving = asyncio.create_task(comparison.changed([[("/", None)]] * 3))
        # The task sends its request in this turn.
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert await comparison.changed([[], [("/", None)]]) == [False, True]


async def test_a_process_that_does_not_answer_is_replaced() -> None:
    comparison = ProcessComparison(patience_seconds=0.1)
    process = await started(comparison)
    process.suspend()
    with pytest.raises(TimeoutError):
        await comparison.changed([[]])
    assert not process.is_running()
    assert [each.pid for each in processes()] == [comparison.process_id]
    await comparison.close()
    assert not processes()


async def test_a_process_that_does_not_answer_does_not_outlive_its_service() -> None:
    comparison = ProcessComparison()
    process = await started(comparison)
    process.suspend()
    await comparison.close()
    assert not processes()
