"""A worker's side of its supervision, in a separate thread.

The thread keeps a scrape from holding up the event loop, and a busy event loop from holding up a scrape.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from serving.runtime.supervision.frames import BlockingFrames
from serving.runtime.supervision.metrics.families import Family

log = structlog.get_logger()

_LEFT_ALONE: Final = 1


class Obedience:
    """Carries out the orders of the supervisor, and ends the process once the supervisor is gone.

    Args:
        frames: connection to the supervisor.
        stop: has the service drain and end; a second call has it end without waiting. Called in the thread.
        metrics: returns the metrics that the service exports. Called in the thread.
        patience: time that the process may take to end without a supervisor, in seconds.
    """

    def __init__(
        self,
        frames: BlockingFrames,
        stop: Callable[[], None],
        metrics: Callable[[], Sequence[Family]],
        patience: float,
    ) -> None:
        self._frames = frames
        self._stop = stop
        self._metrics = metrics
        self._patience = patience
        self._ended = threading.Event()
        self._must_stop = False
        self._thread = threading.Thread(target=self._obey, name="supervision", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Record that the service has ended."""
        self._ended.set()

    def _obey(self) -> None:
        try:
            while (message := self._frames.receive()) is not None:
                if message["kind"] == "stop":
                    self._must_stop = True
                    self._stop()
                elif message["kind"] == "metrics":
                    self._frames.send("metrics", number=message["number"], families=self._exported())
        finally:
            self._end_alone()

    def _exported(self) -> Sequence[Family] | None:
        try:
            return self._metrics()
        except Exception:
            log.exception("metrics cannot be collected")
            return None

    def _end_alone(self) -> None:
        if not self._must_stop:
            self._stop()
        if not self._ended.wait(self._patience):
            log.error("the service does not end and its supervisor is gone; killing the service")
            os._exit(_LEFT_ALONE)
