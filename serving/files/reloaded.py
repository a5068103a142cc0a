"""Values that are built from configuration files, and rebuilt when the files change while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import structlog

from serving.files.following import LOOK_SECONDS, Following
from serving.files.reloads import RELOAD_FAILURES
from serving.volume.file_identity import FileIdentity

log = structlog.get_logger()

_MOST_READS: Final = 3

Value = TypeVar("Value")

Read: TypeAlias = Callable[[], tuple[Value, Sequence[Path]]]
"""Returns the value that the files define, and the files that were read. Blocks. Raises InvalidFile."""
FileStates: TypeAlias = tuple[FileIdentity | None, ...]


class InvalidFile(ValueError):
    """A configuration file cannot be read or is not valid. The message gives its owner the reason."""


class _Version(NamedTuple, Generic[Value]):
    value: Value
    files: tuple[Path, ...]
    states: FileStates
    """States of the files before they were read."""


class Reloaded(Generic[Value]):
    """A value that is kept up to date with its files. Belongs to one event loop.

    Args:
        path: the only file, or the file that names the others.
        read: builds the value.
        look_seconds: time between two checks of the files, in seconds.

    Raises:
        InvalidFile: the value cannot be built at the start. After that, the previous value stays in force.
    """

    def __init__(self, path: Path, read: Read[Value], look_seconds: float = LOOK_SECONDS) -> None:
        self._read = read
        self._version = _current(read, (path,))
        self.value = self._version.value
        """Value in force."""
        self._fault = ""
        self._fault_states: FileStates = ()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="access")
        self._following = Following(self._look, "access", look_seconds)

    async def close(self) -> None:
        """Stop watching the files."""
        await self._following.close()
        # A hanging volume must not block the shutdown.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # After a fault, the files are read at every check: a missing file may be one that this version does not
            # name.
            known = None if self._fault else self._version
            found = await loop.run_in_executor(self._pool, _changed, self._read, self._version.files, known)
        except InvalidFile as error:
            self._count_fault(str(error), await loop.run_in_executor(self._pool, _states_of, self._version.files))
            return
        if found is not None:
            self._version, self.value, self._fault = found, found.value, ""
            log.info("configuration reloaded", file=found.files[0].name)

    def _count_fault(self, fault: str, states: FileStates) -> None:
        """Log and count a fault once, however often the files are checked."""
        if (fault, states) == (self._fault, self._fault_states):
            return
        self._fault, self._fault_states = fault, states
        RELOAD_FAILURES.count("access")
        file = self._version.files[0].name
        log.error("configuration not reloaded; the former stays in force", file=file, reason=fault)


def _changed(read: Read[Value], files: tuple[Path, ...], known: _Version[Value] | None) -> _Version[Value] | None:
    """Return the current version of the files; ``None`` if they have not changed. Raises InvalidFile."""
    if known is not None and _states_of(known.files) == known.states:
        return None
    return _current(read, files)


def _current(read: Read[Value], files: tuple[Path, ...]) -> _Version[Value]:
    """Return the current version of the files; ``files`` are those that ``read`` probably reads. Raises InvalidFile."""
    for _ in range(_MOST_READS):
        states = _states_of(files)
        value, found = read()
        if tuple(found) == files:
            return _Version(value, files, states)
        files = tuple(found)
    # The set of files keeps changing. Without states, the next check reads them again.
    return _Version(value, files, ())


def _states_of(files: tuple[Path, ...]) -> FileStates:
    return tuple(map(FileIdentity.at, files))
