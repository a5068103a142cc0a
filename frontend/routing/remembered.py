"""Contents of model files, remembered by model and read again when a file changes.

All state belongs to one event loop; files are read in threads.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import structlog

from serving.call.closing import close_in_order
from serving.call.daemon_threads import DaemonThreads
from serving.call.load_slots import LoadSlots, SlotBounds
from serving.call.tasks import SingleFlight, Tasks, done_within, joined
from serving.domain.errors import ModelFolderUnavailable, ModelNotFound, ServingError, TooManyLoads
from serving.domain.model_id import ModelId, reference_of
from serving.volume.file_identity import FileIdentity
from serving.volume.freshness.checks import FreshnessChecks
from serving.volume.unknown_models import UnknownBounds, UnknownModels

log = structlog.get_logger()

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)

# Identity of a value that was learned rather than read: it matches no file, so that the next check reads the file.
_UNSEEN: Final = FileIdentity(-1, -1, -1, -1, -1)


@dataclass(slots=True, eq=False)
class Entry(Generic[Value]):
    """The remembered value of one model."""

    value: Value
    file: FileIdentity | None
    """Identity of the file with the value; ``None`` if the value stands for a missing file."""
    freshness_seconds: float
    """Shortest time between two comparisons with the file, in seconds."""
    checked_at: float
    """Time of the last comparison, in seconds of the monotonic clock."""

    @property
    def size(self) -> int:
        """Size of the file in bytes; 0 if the file is missing or unknown."""
        return max(0, self.file.size) if self.file is not None else 0


class Source(Protocol[Value_co]):
    """Source of the files. Methods block unless their docstring says otherwise."""

    kind: str
    """Kind of the files."""
    event: str
    """Log event for a file that cannot be read while an older value stays in force."""

    def file_of(self, model_id: ModelId) -> FileIdentity | None:
        """Return the identity of the model's file; ``None`` if the file is missing and a missing file has a meaning.

        Raises:
            ModelNotFound: no model has this id.
            ServingError: the volume cannot be read.
        """

    def read(self, model_id: ModelId, file: FileIdentity | None) -> Value_co:
        """Return the value in the file. Raises ServingError."""

    async def changed(self, known: Sequence[tuple[ModelId, FileIdentity | None]]) -> Sequence[bool]:
        """Return, for each model, whether its file may have changed: the cheapest check. Does not block.

        Raises:
            TimeoutError: the check takes too long.
        """

    def freshness_of(self, file: FileIdentity | None) -> float:
        """Return the seconds for which the value of the file is used without a check."""


@dataclass(frozen=True, slots=True)
class MemoryBounds:
    """Bounds and times of :class:`Remembered`."""

    most_entries: int = 10_000
    """Maximum number of models whose files are remembered."""
    most_bytes: int = 256 << 20
    """Maximum size of the remembered files together, in bytes."""
    most_lookups: int = 4096
    """Maximum number of models that are looked up at the same time."""
    unknown: UnknownBounds = field(default_factory=UnknownBounds)
    """Bounds of the models that are remembered as absent."""
    patience_seconds: float = 0.1
    """Time for which a caller waits for the volume where an older value can be used, in seconds."""
    slots: SlotBounds = field(default_factory=SlotBounds)
    """Number of slow reads, and the times after which a read is slow, or hangs."""


BOUNDS: Final = MemoryBounds()


class Remembered(Generic[Value]):
    """Remembers the values of a source.

    Args:
        source: the source of the files.
        threads: maximum number of files that are read at the same time, not counting slow reads.
        bounds: bounds and times.
        clock: returns the time by which absent models are forgotten, in seconds.
    """

    def __init__(
        self,
        source: Source[Value],
        *,
        threads: int,
        bounds: MemoryBounds = BOUNDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._bounds = bounds
        self._threads = DaemonThreads(source.kind)
        self._slots = LoadSlots(threads, bounds.slots)
        # Least recently used first. The library's cache takes ten times as long for every call.
        self._entries: OrderedDict[ModelId, Entry[Value]] = OrderedDict()
        self._bytes = 0
        """Size of the files of all entries, in bytes."""
        self._unknown = UnknownModels(bounds.unknown, clock)
        self._looks: FreshnessChecks[Entry[Value], FileIdentity | None] = FreshnessChecks(
            source.changed, self._on_change, math.inf
        )
        self._tasks = Tasks()
        self._lookups: SingleFlight[ModelId, Entry[Value]] = SingleFlight(self._tasks)

    def at_hand(self, model_id: ModelId) -> Entry[Value] | None:
        """Return the entry if it may be used without a wait; a check that is due runs in the background."""
        entry = self._entries.get(model_id)
        if entry is None:
            return None
        self._entries.move_to_end(model_id)
        if self._looks.may_serve(entry, model_id, entry.file, entry.checked_at, entry.freshness_seconds):
            return entry
        return None

    async def of(self, model_id: ModelId) -> Value:
        """Return the value of the model's file.

        While the volume does not answer, or the file is damaged, the remembered value stays in force.

        Raises:
            ModelNotFound: no model has this id; remembered for a second.
            ServingError: the file cannot be read, and no value is remembered.
            TooManyLoads: too many models are looked up.
        """
        entry = self.at_hand(model_id)
        if entry is not None:
            return entry.value
        self._unknown.check(model_id)
        known = self._entries.get(model_id)
        if known is not None and known.checked_at > -math.inf:
            changed = await self._looks.looked(known, model_id, known.file, self._bounds.patience_seconds)
            if not changed:
                # A remembered value need not wait for a volume that hangs.
                return known.value
            known = self._entries.get(model_id)
        if model_id not in self._lookups and len(self._lookups) >= self._bounds.most_lookups:
            raise TooManyLoads("too many models are being looked up; try again shortly")
        lookup = self._lookups.begin(model_id, lambda: self._look_up(model_id, known))
        # A remembered value need not wait for a volume that hangs.
        if known is not None and not await done_within(lookup, self._bounds.patience_seconds):
            return known.value
        return (await joined(lookup)).value

    def known(self, model_id: ModelId) -> Value | None:
        """Return the remembered value, of any age; ``None`` without one."""
        entry = self._entries.get(model_id)
        return None if entry is None else entry.value

    def learn(self, model_id: ModelId, value: Value) -> None:
        """Remember a value that was just written. The value is in force at once; a running check does not undo it."""
        self._unknown.discard(model_id)
        self._keep(model_id, Entry(value, _UNSEEN, self._source.freshness_of(_UNSEEN), time.monotonic()))

    async def close(self) -> None:
        """Cancel all lookups."""
        await close_in_order(self._tasks.close, self._looks.close, self._threads.close)

    def _on_change(self, entry: Entry[Value], *, changed: bool) -> None:
        """Apply the result of a check in the background: a changed file is read when its model is asked for."""
        entry.checked_at = -math.inf if changed else time.monotonic()

    async def _look_up(self, model_id: ModelId, known: Entry[Value] | None) -> Entry[Value]:
        try:
            async with self._slots.quick(reference_of(model_id).name):
                entry = await self._threads.run(self._current, model_id, known)
        except ModelNotFound as error:
            if (learned := self._learned_since(model_id, known)) is not None:
                return learned
            self._forget(model_id)
            self._unknown.add(model_id, error)
            raise
        except ServingError as error:
            if (learned := self._learned_since(model_id, known)) is not None:
                return learned
            # The file is damaged or half written, or the volume fails: like the predictor, keep the old copy.
            if known is None:
                raise
            if not isinstance(error, ModelFolderUnavailable):
                # The watch of the folder logs this once for all models.
                log.warning(self._source.event, model=model_id, reason=str(error))
            entry = known
        if (learned := self._learned_since(model_id, known)) is not None:
            return learned
        entry.checked_at = time.monotonic()
        self._keep(model_id, entry)
        return entry

    def _learned_since(self, model_id: ModelId, known: Entry[Value] | None) -> Entry[Value] | None:
        """Return the value that was learned while the file was read, if any; the file, possibly old, is read again."""
        entry = self._entries.get(model_id)
        if entry is None or entry is known:
            return None
        entry.checked_at = -math.inf
        return entry

    def _keep(self, model_id: ModelId, entry: Entry[Value]) -> None:
        self._forget(model_id)
        self._entries[model_id] = entry
        self._bytes += entry.size
        while len(self._entries) > self._bounds.most_entries or (
            self._bytes > self._bounds.most_bytes and len(self._entries) > 1
        ):
            self._forget(next(iter(self._entries)))

    def _forget(self, model_id: ModelId) -> None:
        entry = self._entries.pop(model_id, None)
        if entry is not None:
            self._bytes -= entry.size

    def _current(self, model_id: ModelId, known: Entry[Value] | None) -> Entry[Value]:
        """Return ``known`` if its file is unchanged, else an entry with the present value of the file."""
        file = self._source.file_of(model_id)
        if known is not None and file == known.file:
            return known
        value = self._source.read(model_id, file)
        return Entry(value, file, self._source.freshness_of(file), time.monotonic())
