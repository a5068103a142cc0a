"""Standard streams that whoever started the process has closed."""

from __future__ import annotations

import os
import sys
from typing import Final

_STREAMS: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def open_closed_streams() -> None:
    """Open the null device in place of closed standard streams. Called before anything else is opened.

    Otherwise, the next socket would get the number of the stream: what is written to standard output would go to a
    caller, and libuv refuses to close such a socket.
    """
    for descriptor, name, mode in _STREAMS:
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is the one of the stream.
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for good
