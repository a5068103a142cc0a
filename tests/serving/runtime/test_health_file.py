"""The file of health, read by the check that containers run."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from serving.runtime.health_file import HealthFile, noted
from tests.builders import PATIENCE, a_turn, host_of, server_settings
from tests.conftest import ROOT
from tests.fakes.predictor import echo, fake_predictor

CHECK = ROOT / "deploy" / "images" / "health-check"


def check(file: Path) -> tuple[int, str]:
    """Run the check; return its exit code and its text."""
    run = subprocess.run([CHECK, file], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert run.stderr == ""
    return run.returncode, run.stdout


async def healthy_again(file: Path) -> None:
    """Run the check beside the event loop until it succeeds."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(check, file) != (0, ""):
            pass


@contextmanager
def health_file(path: Path, *, serving: bool = True, beat: float = 0.01, valid: int = 30) -> Iterator[HealthFile]:
    with closing(HealthFile(path, lambda: serving, beat, valid)) as file:
        yield file


async def test_a_service_that_listens_is_checked_through_its_whole_life(tmp_path: Path) -> None:
    file = tmp_path / "health"
    host = noted(host_of(server_settings(tmp_path), [fake_predictor(echo)]), file)
    assert check(file)[0] == 1
    await host.start()
    await a_turn()
    assert check(file) == (1, "NOT_SERVING\n")
    await host.set_serving(True)
    assert check(file) == (0, "")
    await host.set_serving(False)
    assert check(file) == (1, "NOT_SERVING\n")
    await host.stop(0)
    assert check(file)[0] == 1
    assert not file.exists()


async def test_an_event_loop_that_hangs_is_not_healthy(tmp_path: Path) -> None:
    file = tmp_path / "health"
    with health_file(file, valid=1):
        await healthy_again(file)
        # Blocks the event loop.
        given_up = time.monotonic() + PATIENCE
        while check(file)[0] == 0:
            assert time.monotonic() < given_up
        assert "does not respond" in check(file)[1]
        await healthy_again(file)


async def test_a_file_that_someone_removes_is_written_again(tmp_path: Path) -> None:
    file = tmp_path / "health"
    with health_file(file):
        await a_turn()
        file.unlink()
        await healthy_again(file)


async def test_lines_have_one_length(tmp_path: Path) -> None:
    file = tmp_path / "health"
    sizes = set()
    for serving in (True, False):
        with health_file(file, serving=serving):
            await a_turn()
            sizes.add(file.stat().st_size)
    assert len(sizes) == 1


async def test_a_file_that_cannot_be_written_is_logged_once(tmp_path: Path) -> None:
    with capture_logs() as logs, health_file(tmp_path / "missing" / "health"):
        await asyncio.sleep(0.05)
    assert [(line["log_level"], line["reason"]) for line in logs] == [("error", "No such file or directory")]


@pytest.mark.parametrize("line", ["", "SERVING", "SERVING \n", "SERVING       123", "\0\0\n"])
def test_a_damaged_note_is_not_healthy(tmp_path: Path, line: str) -> None:
    file = tmp_path / "health"
    file.write_text(line)
    assert check(file)[0] == 1
