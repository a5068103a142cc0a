"""What is made of files of the configuration, and made again when they change while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, NamedTuple, TypeAlias, TypeVar

import structlog

from serving.access.access_file import InvalidAccessFile
from serving.reloads import RELOAD_FAILURES

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
"""How often files are looked at."""
_MOST_READS: Final = 3

Value = TypeVar("Value")

Read: TypeAlias = Callable[[], tuple[Value, Sequence[Path]]]
"""Returns what the files say, and which they are. Blocks. Raises InvalidAccessFile."""
FileState: TypeAlias = tuple[int, int, int, int] | None


class _Version(NamedTuple, Generic[Value]):
    value: Value
    files: tuple[Path, ...]
    states: tuple[FileState, ...]
    """How the files were before they were read."""


class Reloaded(Generic[Value]):
    """A value that follows its files. Belongs to one event loop.

    Args:
        path: the file that names the others, or the only one.
        read: makes the value.

    Raises:
        InvalidAccessFile: it cannot be made at the start. Later on, what was in force stays so.
    """

    def __init__(self, path: Path, read: Read[Value]) -> None:
        self._read = read
        self._version = _current(read, (path,))
        self.value = self._version.value
        """What is in force."""
        self._fault = ""
        self._fault_states: tuple[FileState, ...] = ()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="access")
        self._loop = asyncio.get_running_loop()
        self._look: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(LOOK_SECONDS, self._start_look)

    async def close(self) -> None:
        """Look at the files no more."""
        self._timer.cancel()
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
            self._timer.cancel()
        # A volume that hangs must not hang the end.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _start_look(self) -> None:
        self._look = self._loop.create_task(self._look_again())

    async def _look_again(self) -> None:
        try:
            # After a fault they are read every time: what was missing may be a file that the known version lacks.
            known = None if self._fault else self._version
            found = await self._loop.run_in_executor(self._pool, _changed, self._read, self._version.files, known)
        except InvalidAccessFile as error:
            self._count_fault(str(error), await self._loop.run_in_executor(self._pool, _states_of, self._version.files))
        except Exception:
            log.exception("files of the configuration were not looked at")
        else:
            if found is not None:
                self._version, self.value, self._fault = found, found.value, ""
                log.info("configuration reloaded", file=found.files[0].name)
        finally:
            self._timer = self._loop.call_later(LOOK_SECONDS, self._start_look)

    def _count_fault(self, fault: str, states: tuple[FileState, ...]) -> None:
        """Tell of a fault once, however often the files are looked at."""
        if (fault, states) == (self._fault, self._fault_states):
            return
        self._fault, self._fault_states = fault, states
        RELOAD_FAILURES.count("access")
        file = self._version.files[0].name
        log.error("configuration not reloaded; the former stays in force", file=file, reason=fault)


def _changed(read: Read[Value], files: tuple[Path, ...], known: _Version[Value] | None) -> _Version[Value] | None:
    """Return what the files say now; ``None`` where they are as they were. Raises InvalidAccessFile."""
    if known is not None and _states_of(known.files) == known.states:
        return None
    return _current(read, files)


def _current(read: Read[Value], files: tuple[Path, ...]) -> _Version[Value]:
    """Return what the files say now; ``files`` are those that are probably read. Raises InvalidAccessFile."""
    for _ in range(_MOST_READS):
        states = _states_of(files)
        value, found = read()
        if tuple(found) == files:
            return _Version(value, files, states)
        files = tuple(found)
    # They change all the time: the next look reads them again.
    return _Version(value, files, ())


def _states_of(files: tuple[Path, ...]) -> tuple[FileState, ...]:
    return tuple(map(_state_of, files))


def _state_of(file: Path) -> FileState:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
