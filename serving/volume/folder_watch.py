"""Watch of the model folder: whether it can be read, which a single model cannot show."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import structlog

from serving.call.daemon_threads import DaemonThreads
from serving.domain.errors import ModelFolderUnavailable
from serving.volume import model_folder

log = structlog.get_logger()

PATIENCE_SECONDS: Final = 5.0
"""Time after which a model folder that does not answer counts as unreadable, in seconds."""


class ModelFolderWatch:
    """Knows whether the model folder can be read, and logs each change. Belongs to one event loop.

    Args:
        root: the model folder. Links in its path are followed at each check.
        patience_seconds: time within which the folder has to answer, in seconds.
    """

    def __init__(self, root: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._root = str(root.absolute())
        self._patience_seconds = patience_seconds
        # At exit, the interpreter waits for the threads of a pool; a hanging volume must not block the shutdown.
        self._threads = DaemonThreads("model-folder", most_idle=0)
        self._looking: asyncio.Future[ModelFolderUnavailable | None] | None = None
        self._readable = asyncio.Event()
        self._was_told = False

    @property
    def is_readable(self) -> bool:
        """Whether the folder could be read at the last check. May be read in any thread."""
        return self._readable.is_set()

    async def look(self) -> None:
        """Check once whether the folder can be read."""
        if self._looking is None:
            self._looking = self._threads.begin(self._check)
        # A check that hangs is not repeated: its return shows that the folder responds again.
        await asyncio.wait({self._looking}, timeout=self._patience_seconds)
        if not self._looking.done():
            self._tell_unreadable(f"no answer within {self._patience_seconds:g} seconds")
            return
        looked, self._looking = self._looking, None
        error = looked.result()
        if error is None:
            self._tell_readable()
        else:
            self._tell_unreadable(error.__cause__.strerror if isinstance(error.__cause__, OSError) else str(error))

    async def wait_until_readable(self) -> None:
        """Return once a check has found that the folder can be read."""
        await self._readable.wait()

    def _check(self) -> ModelFolderUnavailable | None:
        """Return the reason why the folder cannot be read; ``None`` if it can. Runs in a thread."""
        try:
            model_folder.enter(self._root)
        except ModelFolderUnavailable as unavailable:
            return unavailable
        return None

    def _tell_unreadable(self, reason: str | None) -> None:
        self._readable.clear()
        if not self._was_told:
            self._was_told = True
            log.error(
                "the model folder cannot be read; only models in memory are answered", folder=self._root, reason=reason
            )

    def _tell_readable(self) -> None:
        self._readable.set()
        if self._was_told:
            self._was_told = False
            log.info("the model folder can be read again", folder=self._root)
