"""Models on request: one load for any number of callers, off the event loop, without delaying models in memory.

All state belongs to one event loop: nothing is awaited between reading and changing the state, so no lock is needed.
Files are read, and models built, in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import structlog
from cachetools import TTLCache
from grpc import StatusCode

from predictor.cache.load_spans import LoadSpans
from predictor.cache.processor_time import ProcessorTime
from predictor.cache.residency import Lease, Model, Reservation, Resident, ResidentModels
from predictor.cache.sightings import Sightings
from serving.call.closing import close_in_order
from serving.call.daemon_threads import DaemonThreads
from serving.call.deadline import NEVER, Deadline
from serving.call.load_slots import LoadSlot, LoadSlots, SlotBounds
from serving.call.tasks import SingleFlight, Tasks
from serving.domain.causes import detached
from serving.domain.errors import (
    INTERNAL_MESSAGE,
    ChecksumMismatch,
    FilesChanged,
    FilesUnsettled,
    ForbiddenPickle,
    LoadTooSlow,
    ModelFolderUnavailable,
    ModelIncomplete,
    ModelNotFound,
    ModelPinned,
    ModelUnusable,
    OutOfCapacity,
    ServingError,
    TooManyLoads,
    VolumeUnavailable,
    copy_for_raise,
    service_ends,
)
from serving.domain.model_id import ModelId, reference_of
from serving.volume.freshness.checks import FreshnessChecks
from serving.volume.model_store import SETTLE_SECONDS, Fingerprint
from serving.volume.unknown_models import UnknownBounds, UnknownModels

log = structlog.get_logger()

Source_co = TypeVar("Source_co", covariant=True)

_LOOKING_THREADS: Final = 2
_ATTEMPTS: Final = 3
# uvloop rounds delays to whole milliseconds.
_TIMER_SECONDS: Final = 0.001
_FAULTS_OF_FILES: Final = (ModelUnusable, ChecksumMismatch)


class ModelSource(Protocol[Source_co]):
    """Source of models. All methods but the first block, and are called in threads."""

    async def changed(self, known: Sequence[tuple[ModelId, Fingerprint]]) -> Sequence[bool]:
        """Return, for each model, whether its files may have changed; True where that is unknown.

        Raises:
            TimeoutError: the comparison takes too long.
        """

    def fingerprint(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files. Raises ServingError."""

    def estimate(self, fingerprint: Fingerprint) -> int:
        """Return an estimate of the model's size in memory, in bytes. Does not block."""

    def loading(
        self, model_id: ModelId, fingerprint: Fingerprint, *, settled: bool = True, check: Callable[[], None]
    ) -> Generator[int, None, Source_co]:
        """Load the model step by step, and return it.

        Each step begins with the bytes of memory that the load takes from then on.

        Args:
            model_id: the model.
            fingerprint: the identity of its files.
            settled: whether the files may be taken for one copy without a proof.
            check: called again and again; its errors end the load.

        Raises:
            FilesUnsettled: the files are not settled, and nothing proves that they are one copy.
            ServingError: the files are not a model, or cannot be read.
        """


def _do_nothing() -> None:
    """Do nothing after evictions."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Files that failed to load as a model."""

    fingerprint: Fingerprint
    error: ServingError


@dataclass(frozen=True, slots=True)
class _NeedsMemory:
    """A load that needs more memory than is reserved."""

    size: int
    """Bytes that the whole load takes."""


@dataclass(slots=True)
class _Progress:
    """A load under way, as it is seen in its thread and in the event loop."""

    slot: LoadSlot
    spent: ProcessorTime
    workspace: int
    """Bytes that a slow load takes beyond those that it announces."""
    builds: bool = False
    """Whether the files are read, and the model is built."""

    def needed(self, size: int) -> int:
        """Return the bytes that the whole load takes, if it announces ``size``."""
        return size + (self.workspace if self.slot.is_slow and not self.slot.takes_spare else 0)


class _NotQuick(Exception):
    """A load that is too slow for a quick slot."""


@dataclass(frozen=True, slots=True)
class ManagerBounds:
    """Bounds and times of a :class:`ModelManager`."""

    unknown: UnknownBounds = field(default_factory=UnknownBounds)
    """Bounds of the models that are remembered as absent."""
    failure_seconds: float = 10.0
    """Time after which files that are not a model are tried again, in seconds."""
    costly_seconds: float = 0.1
    """Processor time beyond which a failed load is costly, in seconds."""
    costly_failure_seconds: float = 600.0
    """Time after which files whose load was costly, and failed, are tried again, in seconds."""
    most_failures: int = 4096
    """Maximum number of models whose failure is remembered."""
    slots: SlotBounds = field(default_factory=SlotBounds)
    """Number of slow loads, and of slow checks of files, and the times after which one is slow, or hangs."""
    workspace: int = 0
    """Bytes that a slow load takes beyond those that it announces; memory for one such load is there in any case."""
    quick_processor_seconds: float = 1.0
    """Processor time after which a load that is not slow yet begins again as a slow one, in seconds."""
    processor_seconds: float = 30.0
    """Processor time after which a load is refused, in seconds."""
    refresh_patience_seconds: float = 0.1
    """Time for which a caller waits for a check of the files, and for a newer copy, in seconds."""
    settle_seconds: float = SETTLE_SECONDS
    """Time for which files that no checksums prove to be one copy must be unchanged before a load, in seconds."""
    most_rests: int = 10
    """Maximum number of these times that one load waits while the files keep changing."""
    most_sightings: int = 10_000
    """Maximum number of models whose files are remembered with the time when they were first seen."""
    care_seconds: float = 5.0
    """Shortest time between two calls of ``after_evictions``, in seconds."""


_BOUNDS: Final = ManagerBounds()


class ModelManager(Generic[Model]):
    """Grants leases on loaded models.

    Args:
        source: the source of models.
        residents: the models in memory.
        threads: maximum number of models that load at the same time, not counting slow loads.
        max_loads: maximum number of models that load or wait to be loaded; further loads are refused, and the versions
            of one name beyond half of this number.
        freshness_seconds: shortest time between two comparisons of a model with its files. A model is compared when it
            is asked for.
        bounds: bounds and times.
        after_evictions: called in a thread after models were evicted.
        tasks: owns the loads and checks under way.
        clock: returns the time by which absent models and failures are forgotten, in seconds.
    """

    def __init__(
        self,
        source: ModelSource[Model],
        residents: ResidentModels[Model],
        *,
        threads: int,
        max_loads: int,
        freshness_seconds: float,
        bounds: ManagerBounds = _BOUNDS,
        after_evictions: Callable[[], None] = _do_nothing,
        tasks: Tasks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._bounds = bounds
        self._after_evictions = after_evictions
        self._evictions_cared_for = 0
        self._care: asyncio.TimerHandle | None = None
        self._residents = residents
        self._statistics = residents.statistics
        self._max_loads = max_loads
        self._freshness_seconds = freshness_seconds
        self._threads = DaemonThreads("load")
        self._slots = LoadSlots(threads, bounds.slots)
        # Checks of files must not wait behind loads: they are for models in memory too.
        self._look_slots = LoadSlots(_LOOKING_THREADS, bounds.slots)
        self._loads_of: Counter[ModelId] = Counter()
        """Number of models of each name that load or wait to be loaded."""
        self._hanging: set[ModelId] = set()
        """Models whose loads hang, and whose callers are refused until then."""
        self._waiting: dict[ModelId, dict[asyncio.Future[Lease[Model]], Deadline]] = {}
        """Callers that wait for each model that is being loaded, with their deadlines."""
        self._sightings = Sightings(bounds.settle_seconds, bounds.most_sightings)
        self._resting: dict[ModelId, Deadline] = {}
        """Models whose load waits until their files have settled, with the time when the load continues."""
        self._spans = LoadSpans()
        self._unknown = UnknownModels(bounds.unknown, clock)
        self._failures: TTLCache[ModelId, _Failure] = TTLCache(
            bounds.most_failures, bounds.failure_seconds, timer=clock
        )
        self._costly: TTLCache[ModelId, _Failure] = TTLCache(
            bounds.most_failures, bounds.costly_failure_seconds, timer=clock
        )
        """Failures that took much processor time."""
        self._slow: TTLCache[ModelId, Fingerprint] = TTLCache(
            bounds.most_failures, bounds.costly_failure_seconds, timer=clock
        )
        """Files whose loads are slow."""
        self._looks = FreshnessChecks(source.changed, self._on_change, freshness_seconds)
        self._tasks = Tasks() if tasks is None else tasks
        self._refreshes: SingleFlight[Resident[Model], None] = SingleFlight(self._tasks)
        self._closed = False

    async def acquire(self, model_id: ModelId, deadline: Deadline = NEVER) -> Lease[Model]:
        """Return a lease on the model, which is loaded first if it is not in memory.

        A caller that is cancelled leaves at once; the load continues for the others.

        Args:
            model_id: the model.
            deadline: the last moment at which the lease is of use. A caller is refused at once if the model's files
                cannot have settled by then; any other wait is the caller's to end.

        Raises:
            FilesUnsettled: the files are still changing, or will not have settled before the deadline.
            ModelNotFound: no model has this id; remembered for a second.
            ModelUnusable: the files are not a model; they are tried again when they change, or after ten seconds, or
                ten minutes if their load took much processor time.
            OutOfCapacity: there is no memory for the model, or too many loads are under way.
            Unavailable: the volume does not answer.
        """
        resident = self._residents.get(model_id)
        if resident is None:
            return await self._missed(model_id, deadline)
        self._statistics.hits += 1
        resident.hits += 1
        lease = self._residents.lease(resident)
        if self._is_fresh(resident):
            return lease
        with lease:
            await self._refreshed(resident)
            current = self._residents.get(model_id)
            if current is not None:
                return self._residents.lease(current)
        return await self._loaded(model_id, deadline)

    def acquire_ready(self, model_id: ModelId) -> Lease[Model] | None:
        """Return a lease if that takes no wait: the model is in memory, and no check of its files is due."""
        resident = self._residents.get(model_id)
        if resident is None or not self._looks.may_serve(resident, model_id, resident.fingerprint, resident.checked_at):
            return None
        self._statistics.hits += 1
        resident.hits += 1
        return self._residents.lease(resident)

    def unload(self, model_id: ModelId) -> bool:
        """Unload the model, and return whether it was in memory. Granted leases stay valid.

        Raises:
            ModelPinned: the settings keep the model in memory. If its files were removed, it is soon unloaded
                nevertheless.
        """
        resident = self._residents.get(model_id)
        if self._residents.is_pinned(model_id):
            if resident is not None:
                # A pinned model whose files were removed is unloaded too, even if no caller asks for it again.
                self._refresh_of(resident)
            raise ModelPinned("the predictor's settings keep the model in memory while its files exist")
        if resident is None:
            return False
        self._residents.discard(model_id)
        log.info("model unloaded", model=model_id, generation=resident.generation)
        return True

    @property
    def residents(self) -> ResidentModels[Model]:
        """The models in memory."""
        return self._residents

    @property
    def loads_waiting(self) -> int:
        """Number of models that load or wait to be loaded. May be read in any thread."""
        return len(self._waiting)

    async def preload(self, model_ids: Iterable[ModelId]) -> None:
        """Load models before the first call. A model that cannot be loaded is logged, and delays no other."""
        await asyncio.gather(*(self._preload(model_id) for model_id in dict.fromkeys(model_ids)))

    async def _preload(self, model_id: ModelId) -> None:
        try:
            (await self.acquire(model_id)).release()
        except ServingError as error:
            log.error("model not preloaded", model=model_id, reason=str(error))

    async def close(self) -> None:
        """Cancel all loads. Granted leases stay valid."""
        self._closed = True
        if self._care is not None:
            self._care.cancel()
        await close_in_order(self._tasks.close, self._looks.close, self._threads.close)

    def _is_fresh(self, resident: Resident[Model]) -> bool:
        return time.monotonic() - resident.checked_at < self._freshness_seconds

    async def _missed(self, model_id: ModelId, deadline: Deadline) -> Lease[Model]:
        self._statistics.misses += 1
        began = time.perf_counter()
        try:
            return await self._loaded(model_id, deadline)
        finally:
            self._statistics.miss_seconds.observe(time.perf_counter() - began)

    async def _loaded(self, model_id: ModelId, deadline: Deadline) -> Lease[Model]:
        if self._closed:
            raise service_ends()
        self._unknown.check(model_id)
        waiting = self._waiting.get(model_id)
        if waiting is None:
            name = reference_of(model_id).name
            if len(self._waiting) >= self._max_loads:
                raise TooManyLoads("too many models are waiting to be loaded; try again shortly")
            if self._loads_of[name] >= max(1, self._max_loads // 2):
                raise TooManyLoads("too many versions of this model are waiting to be loaded; try again shortly")
            self._loads_of[name] += 1
            waiting = self._waiting[model_id] = {}
            self._tasks.start(self._load_for_waiting(model_id))
        if model_id in self._hanging:
            raise _hangs()
        rests_until = self._resting.get(model_id)
        if rests_until is not None and deadline <= rests_until:
            raise _too_early(rests_until)
        caller: asyncio.Future[Lease[Model]] = asyncio.get_running_loop().create_future()
        waiting[caller] = deadline
        self._spans.wait(model_id)
        try:
            return await caller
        except asyncio.CancelledError:
            if caller.done() and not caller.cancelled() and caller.exception() is None:
                # The lease was granted just as the caller was cancelled.
                caller.result().release()
            raise

    async def _load_for_waiting(self, model_id: ModelId) -> None:
        began = time.time_ns()
        try:
            resident = await self._load_unless_it_failed(model_id)
        except ServingError as error:
            self._spans.end(model_id, began, error=error.code.name)
            self._refuse(self._waited(model_id), error)
        except asyncio.CancelledError:
            self._spans.end(model_id, began, error=StatusCode.CANCELLED.name)
            self._refuse(self._waited(model_id), service_ends())
            raise
        except Exception:
            # A bug: no caller may be left waiting.
            log.exception("loading failed", model=model_id)
            self._spans.end(model_id, began, error=StatusCode.INTERNAL.name)
            self._refuse(self._waited(model_id), ServingError(INTERNAL_MESSAGE))
        else:
            self._spans.end(model_id, began, size=resident.size)
            for caller in self._waited(model_id):
                if not caller.done():
                    caller.set_result(self._residents.lease(resident))

    def _waited(self, model_id: ModelId) -> Iterable[asyncio.Future[Lease[Model]]]:
        """Return the callers that waited for a load that is over."""
        self._hanging.discard(model_id)
        name = reference_of(model_id).name
        self._loads_of[name] -= 1
        if not self._loads_of[name]:
            del self._loads_of[name]
        return self._waiting.pop(model_id)

    def _on_hanging(self, model_id: ModelId) -> None:
        """Refuse the callers of a load that hangs and is in the way of others; the load goes on by itself."""
        error = _hangs()
        log.error("load hangs", model=model_id)
        self._statistics.count_load_failure(error)
        # A replacement is loaded for no caller.
        if model_id in self._waiting:
            self._hanging.add(model_id)
            self._refuse(self._waiting[model_id], error)
            self._waiting[model_id].clear()

    def _refuse(self, callers: Iterable[asyncio.Future[Lease[Model]]], error: ServingError) -> None:
        for caller in callers:
            if not caller.done():
                caller.set_exception(copy_for_raise(error))

    async def _load_unless_it_failed(self, model_id: ModelId) -> Resident[Model]:
        """Load the model, but first let its files settle if nothing else proves them to be one copy."""
        for _ in range(self._bounds.most_rests):
            try:
                return await self._load_unless_it_changes(model_id)
            except FilesUnsettled as error:
                await self._rest(model_id, error)
        try:
            return await self._load_unless_it_changes(model_id)
        except FilesUnsettled as error:
            self._statistics.count_load_failure(error)
            raise

    async def _rest(self, model_id: ModelId, error: FilesUnsettled) -> None:
        """Let the model's files settle; immediately refuse the callers whose deadlines are earlier."""
        seconds = error.retry_after or 0.0
        until = self._resting[model_id] = Deadline.after(seconds)
        try:
            log.info(
                "the model's files must be unchanged for a moment first",
                model=model_id,
                reason=str(error),
            )
            waiting = self._waiting[model_id]
            self._refuse([caller for caller, deadline in waiting.items() if deadline <= until], _too_early(until))
            await asyncio.sleep(seconds + _TIMER_SECONDS)
        finally:
            del self._resting[model_id]

    async def _load_unless_it_changes(self, model_id: ModelId) -> Resident[Model]:
        """Load the model; begin again if its files change in the meantime, as they do while the model is published."""
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(FilesChanged):
                return await self._attempt(model_id)
        return await self._attempt(model_id)

    async def _attempt(self, model_id: ModelId) -> Resident[Model]:
        try:
            fingerprint = await self._look(model_id)
        except ModelNotFound as error:
            self._unknown.add(model_id, error)
            raise
        except VolumeUnavailable as error:
            self._statistics.count_load_failure(error)
            raise
        for failures in (self._failures, self._costly):
            failure = failures.get(model_id)
            if failure is not None and failure.fingerprint == fingerprint:
                raise copy_for_raise(failure.error)
        return await self._load(model_id, fingerprint)

    async def _look(self, model_id: ModelId) -> Fingerprint:
        """Return the identity of the model's files."""
        async with self._look_slots.quick(reference_of(model_id).name) as slot:
            slot.on_given_up = lambda: self._on_hanging(model_id)
            return await self._threads.run(self._source.fingerprint, model_id)

    async def _load(self, model_id: ModelId, fingerprint: Fingerprint, *, replaces: int = 0) -> Resident[Model]:
        # Memory is reserved once a thread is free: models that wait for a thread must not use up the budget.
        wanted = time.perf_counter()
        name = reference_of(model_id).name
        if self._slow.get(model_id) != fingerprint:
            async with self._slots.quick(name) as slot:
                self._statistics.load_wait_seconds.observe(time.perf_counter() - wanted)
                try:
                    return await self._load_now(model_id, fingerprint, replaces, slot)
                except _NotQuick:
                    self._slow[model_id] = fingerprint
            wanted = time.perf_counter()
        async with self._slots.slow(name) as slot:
            self._statistics.load_wait_seconds.observe(time.perf_counter() - wanted)
            return await self._load_now(model_id, fingerprint, replaces, slot)

    async def _load_now(
        self, model_id: ModelId, fingerprint: Fingerprint, replaces: int, slot: LoadSlot
    ) -> Resident[Model]:
        bounds = self._bounds
        spent = ProcessorTime(lambda: bounds.processor_seconds if slot.is_slow else bounds.quick_processor_seconds)
        progress = _Progress(slot, spent, bounds.workspace)
        reservation = self._reserve(fingerprint, replaces)
        slot.on_given_up = lambda: self._on_hanging(model_id)
        slot.may_move = lambda: self._may_move(reservation, progress)
        settled = self._sightings.have_settled(model_id, fingerprint)
        try:
            steps = self._source.loading(model_id, fingerprint, settled=settled, check=lambda: self._check(progress))
            started = time.perf_counter()
            model = await self._stepped(steps, reservation, progress)
            seconds = time.perf_counter() - started
            self._residents.resize(reservation, model.size)
            resident = self._residents.admit(model_id, model, fingerprint, reservation)
        except FilesUnsettled as error:
            error.retry_after = self._sightings.seen(model_id, fingerprint)
            raise
        except ServingError as error:
            if isinstance(error, LoadTooSlow) and spent.seconds <= bounds.processor_seconds:
                raise _NotQuick from error
            self._count_failure(model_id, fingerprint, error, spent.seconds)
            raise
        finally:
            self._residents.cancel(reservation)
        self._care_for_evictions()
        self._statistics.loads += 1
        self._statistics.load_seconds.observe(seconds)
        log.info(
            "model loaded",
            model=model_id,
            generation=resident.generation,
            bytes=resident.size,
            seconds=round(seconds, 6),
        )
        return resident

    def _check(self, progress: _Progress) -> None:
        """Check that a load may continue. Called in threads."""
        if self._closed:
            raise service_ends()
        progress.builds = True
        progress.slot.sign_of_life()
        progress.spent.check()

    def _may_move(self, reservation: Reservation, progress: _Progress) -> bool:
        """Return whether a load may become a slow one: while it reads, or if there is memory for its workspace."""
        if not progress.builds or self._slots.has_spare:
            return True
        try:
            self._residents.resize(reservation, reservation.size + progress.workspace)
        except OutOfCapacity:
            return False
        return True

    async def _stepped(
        self, steps: Generator[int, None, Model], reservation: Reservation, progress: _Progress
    ) -> Model:
        """Run the steps in threads, and reserve the memory of each before it begins."""
        while True:
            step = await self._threads.run(_next_step, steps, reservation, progress)
            if not isinstance(step, _NeedsMemory):
                return step
            self._residents.resize(reservation, progress.needed(step.size))

    def _count_failure(self, model_id: ModelId, fingerprint: Fingerprint, error: ServingError, seconds: float) -> None:
        """Count a load that failed, and remember the files if they are to blame."""
        self._statistics.count_load_failure(error)
        if isinstance(error, ForbiddenPickle):
            log.error("forbidden pickle", security=True, model=model_id, requested=str(error.__cause__ or "an opcode"))
        if isinstance(error, LoadTooSlow):
            log.error("load takes too long", model=model_id, processor_seconds=round(seconds, 1))
        if isinstance(error, _FAULTS_OF_FILES) and not isinstance(error, ModelIncomplete):
            costly = seconds > self._bounds.costly_seconds
            (self._costly if costly else self._failures)[model_id] = _Failure(fingerprint, detached(error))

    def _reserve(self, fingerprint: Fingerprint, replaces: int) -> Reservation:
        try:
            return self._residents.reserve(self._source.estimate(fingerprint), replaces=replaces)
        except ServingError as error:
            self._statistics.count_load_failure(error)
            raise

    def _care_for_evictions(self) -> None:
        if self._care is None and self._statistics.evictions != self._evictions_cared_for and not self._closed:
            self._care = asyncio.get_running_loop().call_later(self._bounds.care_seconds, self._start_care)

    def _start_care(self) -> None:
        self._care = None
        self._evictions_cared_for = self._statistics.evictions
        self._tasks.start(self._threads.run(self._after_evictions))

    async def _refreshed(self, resident: Resident[Model]) -> None:
        """Compare the resident with its files, and wait a moment for a newer copy; a slow volume delays no caller."""
        resident.checked_at = time.monotonic()
        patience = self._bounds.refresh_patience_seconds
        if resident not in self._refreshes:
            await self._looks.looked(resident, resident.model_id, resident.fingerprint, patience)
        # The check begins a refresh if the files have changed.
        refresh = self._refreshes.get(resident)
        if refresh is not None:
            await asyncio.wait({refresh}, timeout=patience)

    def _on_change(self, resident: Resident[Model], *, changed: bool) -> None:
        """Apply the result of a check in the background."""
        resident.checked_at = time.monotonic()
        if changed and self._residents.get(resident.model_id) is resident:
            self._refresh_of(resident)

    def _refresh_of(self, resident: Resident[Model]) -> asyncio.Task[None]:
        """Return the running refresh, or begin one."""
        return self._refreshes.begin(resident, lambda: self._refresh(resident))

    async def _refresh(self, resident: Resident[Model]) -> None:
        """Load changed files beside ``resident``, and swap the copies; on any fault the old copy stays."""
        for _ in range(self._bounds.most_rests):
            seconds = await self._replace(resident)
            if not seconds:
                return
            await asyncio.sleep(seconds + _TIMER_SECONDS)

    async def _replace(self, resident: Resident[Model]) -> float:
        """Swap ``resident`` for changed files; return the seconds for which the files must settle first."""
        model_id = resident.model_id
        try:
            fingerprint = await self._look(model_id)
        except ModelNotFound:
            log.info("model removed", model=model_id)
            if self._residents.get(model_id) is resident:
                self._residents.discard(model_id)
            return 0.0
        except ModelFolderUnavailable:
            # The watch of the folder logs this once for all models.
            return 0.0
        except ServingError as error:
            log.warning("model files cannot be checked; the loaded copy serves on", model=model_id, reason=str(error))
            return 0.0
        if self._residents.get(model_id) is not resident or fingerprint in (resident.fingerprint, resident.refused):
            return 0.0
        # The old copy must not be evicted to make room for a copy that may be bad.
        with self._residents.lease(resident):
            try:
                await self._load(model_id, fingerprint, replaces=1)
            except (FilesUnsettled, FilesChanged) as error:
                log.info("replacement not complete yet", model=model_id, reason=str(error))
                return error.retry_after or 0.0
            except ServingError as error:
                if isinstance(error, _FAULTS_OF_FILES) and not isinstance(error, ModelIncomplete):
                    self._refuse_replacement(resident, fingerprint)
                log.error("replacement refused; the loaded copy serves on", model=model_id, reason=str(error))
            except Exception:
                # A bug: the load must not be tried again with every check.
                self._refuse_replacement(resident, fingerprint)
                log.exception("loading failed", model=model_id)
        return 0.0

    def _refuse_replacement(self, resident: Resident[Model], fingerprint: Fingerprint) -> None:
        resident.refused = fingerprint
        self._statistics.replacements_refused += 1


def _too_early(until: Deadline) -> FilesUnsettled:
    return FilesUnsettled(
        "the model's files have only just arrived, without sums that prove them complete; try again in a second",
        until.remaining(),
    )


def _next_step(
    steps: Generator[int, None, Model], reservation: Reservation, progress: _Progress
) -> Model | _NeedsMemory:
    """Run steps until the load is over, or needs more memory than is reserved. Runs in a thread."""
    with progress.spent.counted():
        try:
            while progress.needed(size := next(steps)) <= reservation.size:
                pass
        except StopIteration as end:
            model: Model = end.value
            return model
        return _NeedsMemory(size)


def _hangs() -> VolumeUnavailable:
    return VolumeUnavailable("the model's files do not arrive from the volume; try again once it answers")
