from __future__ import annotations

import sys
from pathlib import Path

import psutil

from benchmarks.process_figures import cpu_seconds, memory_mebibytes
from peers.programs import running
from tests.peers.test_programs import PARENT, wait_for


def test_the_figures_of_a_program_are_also_those_of_what_it_started(tmp_path: Path) -> None:
    with running((sys.executable, "-c", PARENT), tmp_path / "log") as program:
        pid = program.process.pid
        wait_for(tmp_path / "log", "up")

        # The memory of each process depends on how many others share its pages.
        assert memory_mebibytes([pid]) > psutil.Process(pid).memory_full_info().pss / (1 << 20)
        assert cpu_seconds([pid]) > psutil.Process(pid).cpu_times().user
