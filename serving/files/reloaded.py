"""What is made of files of the configuration, and made again when they change while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import structlog

from serving.files.following import Following
from serving.files.reloads import RELOAD_FAILURES
from serving.volume.file_identity import FileIdentity

log = structlog.get_logger()

_MOST_READS: Final = 3

Value = TypeVar("Value")

Read: TypeAlias = Callable[[], tuple[Value, Sequence[Path]]]
"""Returns what the files say, and which they are. Blocks. Raises InvalidFile."""
FileStates: TypeAlias = tuple[FileIdentity | None, ...]


class InvalidFile(ValueError):
    """A file of the configuration cannot be read or understood. The message tells its owner why."""


class _Version(NamedTuple, Generic[Value]):
    value: Value
    files: tuple[Path, ...]
    states: FileStates
    """How the files were before they were read."""


class Reloaded(Generic[Value]):
    """A value that follows its files. Belongs to one event loop.

    Args:
        path: the file that names the others, or the only one.
        read: makes the value.

    Raises:
        InvalidFile: it cannot be made at the start. Later on, what was in force stays so.
    """

    def __init__(self, path: Path, read: Read[Value]) -> None:
        self._read = read
        self._version = _current(read, (path,))
        self.value = self._version.value
        """What is in force."""
        self._fault = ""
        self._fault_states: FileStates = ()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="access")
        self._following = Following(self._look, "access")

    async def close(self) -> None:
        """Look at the files no more."""
        await self._following.close()
        # A volume that hangs must not hang the end.
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # After a fault they are read every time: what was missing may be a file that the known version lacks.
            known = None if self._fault else self._version
            found = await loop.run_in_executor(self._pool, _changed, self._read, self._version.files, known)
        except InvalidFile as error:
            self._count_fault(str(error), await loop.run_in_executor(self._pool, _states_of, self._version.files))
            return
        if found is not None:
            self._version, self.value, self._fault = found, found.value, ""
            log.info("configuration reloaded", file=found.files[0].name)

    def _count_fault(self, fault: str, states: FileStates) -> None:
        """Tell of a fault once, however often the files are looked at."""
        if (fault, states) == (self._fault, self._fault_states):
            return
        self._fault, self._fault_states = fault, states
        RELOAD_FAILURES.count("access")
        file = self._version.files[0].name
        log.error("configuration not reloaded; the former stays in force", file=file, reason=fault)


def _changed(read: Read[Value], files: tuple[Path, ...], known: _Version[Value] | None) -> _Version[Value] | None:
    """Return what the files say now; ``None`` where they are as they were. Raises InvalidFile."""
    if known is not None and _states_of(known.files) == known.states:
        return None
    return _current(read, files)


def _current(read: Read[Value], files: tuple[Path, ...]) -> _Version[Value]:
    """Return what the files say now; ``files`` are those that are probably read. Raises InvalidFile."""
    for _ in range(_MOST_READS):
        states = _states_of(files)
        value, found = read()
        if tuple(found) == files:
            return _Version(value, files, states)
        files = tuple(found)
    # They change all the time: the next look reads them again.
    return _Version(value, files, ())


def _states_of(files: tuple[Path, ...]) -> FileStates:
    return tuple(map(FileIdentity.at, files))
