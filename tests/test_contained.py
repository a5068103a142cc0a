from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import psutil
import pytest

from tests.builders import PATIENCE
from tests.conftest import ROOT

CONTAINED = [sys.executable, "-m", "tests.contained"]
# A shell leaves a process in a session of its own, prints its id, and goes on.
LEAVING = "setsid sleep 1000 & echo $!; {then}"


def ended(process_id: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(process_id).wait(PATIENCE)
    return not psutil.pid_exists(process_id)


@pytest.mark.parametrize("code", [0, 7])
def test_what_a_command_leaves_behind_ends_with_the_command(code: int) -> None:
    command = [*CONTAINED, "sh", "-c", LEAVING.format(then=f"exit {code}")]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False, timeout=PATIENCE)
    assert done.returncode == code
    assert ended(int(done.stdout))


def test_orphans_are_gone_once_they_have_ended() -> None:
    waits = "orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); while test -e /proc/$orphan; do sleep 0.05; done"
    subprocess.run([*CONTAINED, "sh", "-c", waits], cwd=ROOT, check=True, timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_interrupts_its_command_and_leaves_nothing_behind(number: signal.Signals) -> None:
    command = [*CONTAINED, "sh", "-c", LEAVING.format(then='trap "exit 3" INT; echo ready; sleep 1000 & wait')]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 3
    assert ended(left)
