"""What files of models say, remembered by model, and read again when a file has changed.

All state belongs to one event loop; files are read in a pool of threads of its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog
from cachetools import TTLCache

from serving.call.tasks import SingleFlight, Tasks, joined
from serving.domain.errors import ModelNotFound, ServingError, TooManyLoads, copy_for_raise
from serving.domain.model_id import ModelId
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.checks import FreshnessChecks

log = structlog.get_logger()

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)

# Of what was learned, and not read: no file is this one, so that the next look reads the file.
_UNSEEN: Final = FileIdentity(-1, -1, -1, -1, -1)


@dataclass(slots=True, eq=False)
class Entry(Generic[Value]):
    """What is remembered of one model."""

    value: Value
    file: FileIdentity | None
    """The file that says so; ``None``: that there is none says so."""
    freshness_seconds: float
    """It is compared with the file at most once in this time."""
    checked_at: float


class Source(Protocol[Value_co]):
    """The files. Methods block unless they say otherwise."""

    kind: str
    """What they are."""
    event: str
    """The log line where one cannot be read, and what is known of it stays in force."""

    def file_of(self, model_id: ModelId) -> FileIdentity | None:
        """Return the identity of the model's file; ``None`` where that there is none says something too.

        Raises:
            ModelNotFound: there is no such model.
            ServingError: it cannot be told.
        """

    def read(self, model_id: ModelId, file: FileIdentity | None) -> Value_co:
        """Return what the file says. Raises ServingError."""

    async def changed(self, known: Sequence[tuple[ModelId, FileIdentity | None]]) -> Sequence[bool]:
        """Return of each model whether its file may be another by now: the cheapest look there is. Does not block.

        Raises:
            TimeoutError: that takes too long.
        """

    def freshness_of(self, file: FileIdentity | None) -> float:
        """Return how many seconds what the file says is taken on trust."""


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """Bounds and times of :class:`Remembered`."""

    most_entries: int = 10_000
    """Maximum number of models whose files are remembered."""
    most_lookups: int = 4096
    """Maximum number of models that are looked up at the same time."""
    unknown_seconds: float = 1.0
    """Time for which a model that does not exist is remembered, in seconds."""
    most_unknown: int = 65_536
    """Maximum number of such models."""
    patience_seconds: float = 0.1
    """Time for which a caller waits for the volume where an older value can be used, in seconds."""


_BOUNDS: Final = MemoryBounds()


class Remembered(Generic[Value]):
    """Remembers what a source says.

    Args:
        source: the files.
        threads: how many files are read at the same time.
        bounds: bounds and times.
    """

    def __init__(self, source: Source[Value], *, threads: int, bounds: MemoryBounds = _BOUNDS) -> None:
        self._source = source
        self._bounds = bounds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=source.kind)
        # Least recently asked for first. A cache of the library takes ten times as long, with every call.
        self._entries: OrderedDict[ModelId, Entry[Value]] = OrderedDict()
        self._unknown: TTLCache[ModelId, ServingError] = TTLCache(bounds.most_unknown, bounds.unknown_seconds)
        self._looks: FreshnessChecks[Entry[Value], FileIdentity | None] = FreshnessChecks(
            source.changed, self._on_change, math.inf
        )
        self._tasks = Tasks()
        self._lookups: SingleFlight[ModelId, Entry[Value]] = SingleFlight(self._tasks)

    def at_hand(self, model_id: ModelId) -> Entry[Value] | None:
        """Return what is remembered where it need not be looked at first; where a look is due, it is taken beside."""
        entry = self._entries.get(model_id)
        if entry is None:
            return None
        self._entries.move_to_end(model_id)
        # Here once more, because every call comes here.
        if time.monotonic() - entry.checked_at < entry.freshness_seconds:
            return entry
        if self._looks.may_serve(entry, model_id, entry.file, entry.checked_at, entry.freshness_seconds):
            return entry
        return None

    async def of(self, model_id: ModelId) -> Value:
        """Return what the model's file says.

        While the volume does not answer, or the file is damaged, what is known stays in force.

        Raises:
            ModelNotFound: there is no such model; remembered for a second.
            ServingError: the source cannot tell, and nothing is known.
            TooManyLoads: too many are looked up.
        """
        entry = self.at_hand(model_id)
        if entry is not None:
            return entry.value
        unknown = self._unknown.get(model_id)
        if unknown is not None:
            raise copy_for_raise(unknown)
        known = self._entries.get(model_id)
        if known is not None and known.checked_at > -math.inf:
            changed = await self._looks.looked(known, model_id, known.file, self._bounds.patience_seconds)
            if not changed:
                # While the volume hangs, what is known need not wait for it.
                return known.value
            known = self._entries.get(model_id)
        if model_id not in self._lookups and len(self._lookups) >= self._bounds.most_lookups:
            raise TooManyLoads("too many models are looked up at the moment; try again shortly")
        lookup = self._lookups.begin(model_id, lambda: self._look_up(model_id, known))
        if known is not None:
            # While the volume hangs, what is known need not wait for it.
            await asyncio.wait({lookup}, timeout=self._bounds.patience_seconds)
            if not lookup.done():
                return known.value
        return (await joined(lookup)).value

    def known(self, model_id: ModelId) -> Value | None:
        """Return what is remembered, however old; ``None`` where nothing is."""
        entry = self._entries.get(model_id)
        return None if entry is None else entry.value

    def learn(self, model_id: ModelId, value: Value) -> None:
        """Remember what was just written. It is in force from now on; a look under way does not undo it."""
        self._unknown.pop(model_id, None)
        self._keep(model_id, Entry(value, _UNSEEN, self._source.freshness_of(_UNSEEN), time.monotonic()))

    async def close(self) -> None:
        """End all look-ups."""
        await self._tasks.close()
        await self._looks.close()
        # A volume that hangs must not hang the end.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _on_change(self, entry: Entry[Value], *, changed: bool) -> None:
        """Take in what a look in the background found: what has changed is looked up when it is asked for."""
        entry.checked_at = -math.inf if changed else time.monotonic()

    async def _look_up(self, model_id: ModelId, known: Entry[Value] | None) -> Entry[Value]:
        try:
            entry = await asyncio.get_running_loop().run_in_executor(self._pool, self._current, model_id, known)
        except ModelNotFound as error:
            if (learned := self._learned_since(model_id, known)) is not None:
                return learned
            self._entries.pop(model_id, None)
            self._unknown[model_id] = copy_for_raise(error)
            raise
        except ServingError as error:
            if (learned := self._learned_since(model_id, known)) is not None:
                return learned
            # The predictor serves its old copy on, and so must we: damaged, half written, or on a volume that fails.
            if known is None:
                raise
            log.warning(self._source.event, model=model_id, reason=str(error))
            entry = known
        if (learned := self._learned_since(model_id, known)) is not None:
            return learned
        entry.checked_at = time.monotonic()
        self._keep(model_id, entry)
        return entry

    def _learned_since(self, model_id: ModelId, known: Entry[Value] | None) -> Entry[Value] | None:
        """Return what was learned while the file was read, which may have been the former one: it is read again."""
        entry = self._entries.get(model_id)
        if entry is None or entry is known:
            return None
        entry.checked_at = -math.inf
        return entry

    def _keep(self, model_id: ModelId, entry: Entry[Value]) -> None:
        self._entries[model_id] = entry
        self._entries.move_to_end(model_id)
        if len(self._entries) > self._bounds.most_entries:
            self._entries.popitem(last=False)

    def _current(self, model_id: ModelId, known: Entry[Value] | None) -> Entry[Value]:
        """Return ``known`` if the file is still the one it was read from, else what the file says now."""
        file = self._source.file_of(model_id)
        if known is not None and file == known.file:
            return known
        value = self._source.read(model_id, file)
        return Entry(value, file, self._source.freshness_of(file), time.monotonic())
