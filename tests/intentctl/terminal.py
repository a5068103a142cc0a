"""A real terminal for commands that print otherwise on one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

from tests.conftest import ROOT


def printed_on_a_terminal(*arguments: str, columns: int = 80, environment: Mapping[str, str] | None = None) -> bytes:
    """Return what ``intentctl`` prints on a terminal of so many columns, without its own colours."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    variables = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", **(environment or {})}
    for name in ("COLUMNS", "LINES", "FORCE_COLOR"):
        variables.pop(name, None)
    command = [sys.executable, "-m", "intentctl", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=inner, stdout=inner, stderr=inner, env=variables) as process:
        os.close(inner)
        printed = b""
        try:
            while part := os.read(outer, 65536):
                printed += part
        except OSError:
            """The last process has closed its side of the terminal."""
        finally:
            os.close(outer)
        process.wait()
    return printed
