from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.process_figures import cpu_seconds, memory_mebibytes
from benchmarks.programs import ProgramEnded, running

CHILD = "import time; sum(range(10**7)); print('up', flush=True); time.sleep(60)"
PARENT = f'import subprocess, sys; subprocess.Popen([sys.executable, "-c", {CHILD!r}], start_new_session=True).wait()'


def test_a_program_ends_with_all_that_it_started(tmp_path: Path) -> None:
    with running((sys.executable, "-c", PARENT), tmp_path / "log") as program:
        pid = program.process.pid
        _wait_for(tmp_path / "log", "up")
        program.check_alive()
        (child,) = psutil.Process(pid).children()
        assert memory_mebibytes([pid]) > 10
        assert cpu_seconds([pid]) > psutil.Process(pid).cpu_times().user

    assert not psutil.pid_exists(pid)
    child.wait(10)


def test_a_program_that_ended_tells_its_last_lines(tmp_path: Path) -> None:
    with running((sys.executable, "-c", "raise SystemExit('no such port')"), tmp_path / "log") as program:
        program.process.wait()
        with pytest.raises(ProgramEnded, match="exit code 1: no such port"):
            program.check_alive()


def _wait_for(log: Path, text: str) -> None:
    while text not in log.read_text():
        time.sleep(0.05)
