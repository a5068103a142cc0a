"""A gate in a fake: it holds the fake's threads at a point where no real volume and no real model can be stopped."""

from __future__ import annotations

import threading

from tests.builders import PATIENCE


class Gate:
    """A point at which threads wait: open until :meth:`shut`. Reports that a thread has reached it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self.reached = threading.Event()

    def shut(self) -> None:
        self.reached.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def go_through(self) -> None:
        self.reached.set()
        assert self._open.wait(PATIENCE)
