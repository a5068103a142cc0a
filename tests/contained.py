"""``python -m tests.contained COMMAND...``: runs a command, and ends every process that the command leaves behind.

Tests start services, and a run that is stopped has no time to stop all of them. On Linux, processes whose parent has
ended become children of this one, so that none is missed. The exit code is that of the command.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final

import psutil

STOP_SECONDS: Final = 30.0
"""Seconds that a stopped command has to end by itself."""

_END_SECONDS: Final = 5.0
# From <linux/prctl.h>.
_PR_SET_CHILD_SUBREAPER: Final = 36


def run(command: Sequence[str]) -> int:
    """Run ``command`` until its end, or until this process is stopped; return its exit code.

    If this process gets SIGTERM or SIGHUP, the command and its processes are interrupted, as by Ctrl-C in a terminal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGINT, _give_time)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    signal.signal(signal.SIGALRM, _kill)
    # Handled signals have their default effect in the command, even if this process was started with some ignored.
    with subprocess.Popen(command) as process:
        try:
            code = process.returncode = _end_of(process.pid)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            _end_what_is_left()
    return 128 - code if code < 0 else code


def _end_of(process_id: int) -> int:
    """Return the exit code of a child; collect those of orphans too, which would stay as zombies."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == process_id:
            return os.waitstatus_to_exitcode(status)


def _give_time(number: int, frame: FrameType | None) -> None:
    """Give the command time to end: a terminal has sent Ctrl-C to the command, too."""
    del number, frame
    signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _send(signal.SIGINT)
    _give_time(number, frame)


def _kill(number: int, frame: FrameType | None) -> None:
    del number, frame
    _send(signal.SIGKILL)


def _send(number: signal.Signals) -> None:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _end_what_is_left() -> None:
    own = psutil.Process()
    # A process that ends makes its children this one's, so one look may not find all.
    while left := [each for each in own.children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]:
        for process in left:
            process.kill()
        psutil.wait_procs(left, timeout=_END_SECONDS)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
