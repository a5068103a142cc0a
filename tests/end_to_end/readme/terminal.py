"""A reader at a terminal: types commands, waits for their ends, and leaves services running until others start."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.end_to_end.readme.blocks import Command
from tests.end_to_end.readme.figures import comparable, lines_in

_COLUMNS, _ROWS = 120, 40
_SERVES: Final = re.compile(r"(scripts/run|intentctl up|python -m (frontend|predictor|model_service))\b")
_LASTS: Final = re.compile(r"(source|export|cd) ")
_STOP_SECONDS: Final = 60.0


class Screen:
    """One command that runs in a terminal of its own, and what it has printed so far."""

    def __init__(self, script: str, folder: Path, environment: Mapping[str, str]) -> None:
        self._own, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self._process = subprocess.Popen(
            ["bash", "-c", script],
            stdin=other, stdout=other, stderr=other, cwd=folder, env=environment, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.printed = ""
        # A character may arrive in parts.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def read_until_end(self, seconds: float) -> int:
        """Read until the command ends; return its exit code."""
        given_up = time.monotonic() + seconds
        while self._read(given_up):
            pass
        return self._process.wait(_STOP_SECONDS)

    def read_lines(self, count: int, seconds: float) -> None:
        """Read until the command has printed ``count`` lines, or has ended."""
        given_up = time.monotonic() + seconds
        while lines_in(self.printed) < count and self._read(given_up):
            pass

    def stop(self) -> None:
        """Press Ctrl-C, and wait until the command and all that it has started have ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            self.read_until_end(_STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_SECONDS)
            os.close(self._own)

    def _read(self, given_up: float) -> bool:
        """Read what there is; return whether there may be more. Raises AssertionError when the time is over."""
        ready, _, _ = select.select([self._own], [], [], max(0.0, given_up - time.monotonic()))
        assert ready, f"too slow; so far: {self.printed}"
        try:
            data = os.read(self._own, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # The last process that held the terminal has ended.
            return False
        self.printed += self._decoder.decode(data)
        return bool(data)


@dataclass
class Reader:
    """Does what a reader of the README does, in a clone.

    A service that a command starts runs until a later block starts services, as its ports are needed then. The commands
    of one block that start services run beside each other, each in its own terminal.
    """

    clone: Path
    environment: Mapping[str, str]
    seconds: float = 1800.0
    """Time for one command, in seconds."""
    _lasting: list[str] = field(default_factory=list)
    """Commands that change the shell, and so hold for those that follow."""
    _services: list[Screen] = field(default_factory=list)
    _new_services: list[Screen] = field(default_factory=list)

    def begin_block(self) -> None:
        """Begin a block."""
        self._services += self._new_services
        self._new_services = []

    def run(self, command: Command) -> None:
        """Run a command and compare what it prints; leave a service running once it has printed what is expected."""
        if _LASTS.match(command.text):
            self._lasting.append(command.text)
            assert command.output == ""
            return
        serves = _SERVES.match(command.text) is not None
        if serves:
            _stop_all(self._services)
        screen = Screen("\n".join([*self._lasting, command.text]), self.clone, self.environment)
        if serves:
            self._new_services.append(screen)
            screen.read_lines(command.output.count("\n"), self.seconds)
        else:
            screen.read_until_end(self.seconds)
        assert comparable(screen.printed) == comparable(command.output), f"{command.text}\n{screen.printed}"

    def run_program(self, source: str, output: str) -> None:
        """Run a program in Python and compare what it prints."""
        program = self.clone / ".program.py"
        program.write_text(source)
        self.run(Command(f"python {program.name}", output))
        program.unlink()

    def close(self) -> None:
        """Stop all services."""
        self.begin_block()
        _stop_all(self._services)


def _stop_all(screens: list[Screen]) -> None:
    while screens:
        screens.pop().stop()
