"""Processor time of one load, and the bound on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serving.domain.errors import LoadTooSlow


class ProcessorTime:
    """Counts the processor time of a load, whose steps may run in several threads, one after the other.

    Args:
        most_seconds: returns the processor time that the load may take, in seconds. Called in threads.
    """

    def __init__(self, most_seconds: Callable[[], float]) -> None:
        self._most_seconds = most_seconds
        self._before = 0.0
        self._began: float | None = None

    @property
    def seconds(self) -> float:
        """Processor time that the load has taken, in seconds. Read in the thread of its step, or between two steps."""
        return self._before if self._began is None else self._before + time.thread_time() - self._began

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the processor time of this thread during the block."""
        self._began = time.thread_time()
        try:
            yield
        finally:
            self._before, self._began = self.seconds, None

    def check(self) -> None:
        """Check that the load may continue.

        Raises:
            LoadTooSlow: it has taken too much processor time.
        """
        most = self._most_seconds()
        if self.seconds > most:
            raise LoadTooSlow(
                f"the model was not loaded within {most:g} seconds of processor time; publish a smaller one"
            )
