from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from peers.programs import ProgramEnded, free_ports, running

CHILD = "import time; sum(range(10**7)); print('up', flush=True); time.sleep(60)"
PARENT = f'import subprocess, sys; subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True).wait()'
SAME_GROUP = PARENT.replace(", start_new_session=True", "")


def test_a_program_ends_with_all_that_it_started(tmp_path: Path) -> None:
    with running((sys.executable, "-c", PARENT), tmp_path / "log") as program:
        pid = program.process.pid
        wait_for(tmp_path / "log", "up")
        program.check_alive()
        (child,) = psutil.Process(pid).children()

    assert not psutil.pid_exists(pid)
    child.wait(10)


def test_a_program_that_ended_tells_its_last_lines(tmp_path: Path) -> None:
    with running((sys.executable, "-c", "raise SystemExit('no such port')"), tmp_path / "log") as program:
        program.process.wait()
        with pytest.raises(ProgramEnded, match="exit code 1: no such port"):
            program.check_alive()


def test_a_program_is_paused_resumed_and_killed_with_all_that_it_started(tmp_path: Path) -> None:
    with running((sys.executable, "-c", SAME_GROUP), tmp_path / "log") as program:
        wait_for(tmp_path / "log", "up")
        (child,) = psutil.Process(program.process.pid).children()

        both = (psutil.Process(program.process.pid), child)

        program.pause()
        while {process.status() for process in both} != {psutil.STATUS_STOPPED}:
            time.sleep(0.05)
        program.resume()
        while psutil.STATUS_STOPPED in {process.status() for process in both}:
            time.sleep(0.05)
        program.kill()

        child.wait(10)
        with pytest.raises(ProgramEnded):
            program.check_alive()


def test_free_ports_are_all_different() -> None:
    assert len(set(free_ports(50, "127.0.0.2"))) == 50


def wait_for(log: Path, text: str) -> None:
    while text not in log.read_text():
        time.sleep(0.05)
