"""Programs that tests and benchmarks start. Each leads a process group, which is ended as a group, by its id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
IMPORT_PATH: Final = os.pathsep.join((str(ROOT), str(ROOT / "clients" / "python" / "src")))
"""Folders in which Python finds this project's packages, as ``PYTHONPATH`` lists them."""

_STOP_SECONDS: Final = 15.0
_LINES_TOLD: Final = 5

# Each program gets one thread, so that none has more than its share of the machine.
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_OURS: Final = ("INTENT_", "MODEL_DIR", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class ProgramEnded(Exception):
    """A program ended by itself; the message has its last lines."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program."""

    process: subprocess.Popen[bytes]
    log: Path

    def check_alive(self) -> None:
        """Raise :class:`ProgramEnded` if the program has ended."""
        code = self.process.poll()
        if code is not None:
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            raise ProgramEnded(f"exit code {code}: {' / '.join(lines[-_LINES_TOLD:])}")

    def pause(self) -> None:
        """Suspend the process group until :meth:`resume`."""
        _signal_group(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the process group."""
        _signal_group(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process group at once."""
        _signal_group(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def running(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None, folder: Path = ROOT
) -> Iterator[Program]:
    """Start a program, and end it after the block, together with all processes that it started.

    Args:
        command: the program and its arguments.
        log: file that the program's output is appended to.
        environment: variables in addition to those of this process; this project's settings are not inherited.
        folder: working directory of the program.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env={**inherited, **_ONE_THREAD, **(environment or {})},
            start_new_session=True,
        )
    try:
        yield Program(process, log)
    finally:
        _end(process)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return distinct ports of ``host``, an address of this machine, that nothing listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _end(process: subprocess.Popen[bytes]) -> None:
    started = _children(process.pid)
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    # Processes that the program started may outlive it, and would distort the next measurement.
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()
    for child in started:  # those that left the group
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _children(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
