"""Bookkeeping of the models in memory: least-recently-used eviction, by bytes and by count. Never loads or waits.

Every method is called on one thread, the event loop's, and decides at once, without waiting. A model in use is never
evicted; a model that is replaced or removed while in use counts until its last lease ends.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Protocol, TypeVar

from cachetools import Cache, LRUCache

from predictor.cache.statistics import CacheStatistics
from serving.domain.errors import MemoryInUse, ModelTooLarge
from serving.domain.model_id import ModelId
from serving.volume.model_store import Fingerprint


class Sized(Protocol):
    """An object that knows its size and so can be held in memory."""

    @property
    def size(self) -> int:
        """Bytes of memory that the object takes."""


Model = TypeVar("Model", bound=Sized)


@dataclass(slots=True, eq=False)
class Resident(Generic[Model]):
    """A model in memory. REQUIRES: changed by :class:`ResidentModels` and its model manager only."""

    model_id: ModelId
    model: Model
    fingerprint: Fingerprint
    generation: int
    size: int
    checked_at: float
    """Time of the last comparison of the model's files with ``fingerprint``; seconds on the monotonic clock."""
    refused: Fingerprint | None = None
    """Files that failed to replace the model; they are not tried again until they change."""
    leases: int = 0
    dismissed: bool = False
    """Whether the model left the cache while still in use."""
    hits: int = 0
    last_used: float = field(default_factory=time.monotonic)


class Lease(Generic[Model]):
    """Right to use a model until :meth:`release` or the end of the ``with`` block. Ends once."""

    __slots__ = ("_owner", "_resident")

    def __init__(self, owner: ResidentModels[Model], resident: Resident[Model]) -> None:
        self._owner = owner
        self._resident: Resident[Model] | None = resident
        resident.leases += 1

    @property
    def resident(self) -> Resident[Model]:
        """Cache entry of the model. Must not be kept beyond the lease."""
        if self._resident is None:
            raise RuntimeError("the lease has ended")
        return self._resident

    @property
    def model(self) -> Model:
        """The model. Must not be kept beyond the lease."""
        return self.resident.model

    def release(self) -> None:
        """End the lease; a repeated call does nothing."""
        resident, self._resident = self._resident, None
        if resident is not None:
            self._owner.end_lease(resident)

    def __enter__(self) -> Model:
        return self.model

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Reservation:
    """Bytes set aside for a model that is being loaded."""

    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size


class ResidentModels(Generic[Model]):
    """Models in memory.

    Args:
        max_bytes: maximum bytes of models in memory, being loaded and still in use, together.
        max_models: maximum number of models in memory and being loaded.
        pinned: models that are never evicted.
    """

    def __init__(self, *, max_bytes: int, max_models: int, pinned: Collection[ModelId] = ()) -> None:
        self._pinned = frozenset(pinned)
        self.statistics = CacheStatistics()
        self._max_bytes = max_bytes
        self._max_models = max_models
        self._cache: LRUCache[ModelId, Resident[Model]] = LRUCache(max_bytes, getsizeof=lambda resident: resident.size)
        self._reservations: set[Reservation] = set()
        self._reserved_bytes = 0
        self._dismissed_bytes = 0
        self._generations = 0

    def __len__(self) -> int:
        return len(self._cache)

    @property
    def bytes_held(self) -> int:
        """Bytes of models in memory, being loaded, and removed but still in use. Readable from any thread."""
        return int(self._cache.currsize) + self._reserved_bytes + self._dismissed_bytes

    @property
    def budget(self) -> int:
        """Bytes that may be held."""
        return self._max_bytes

    def residents(self) -> list[Resident[Model]]:
        """Return every model in memory, most recently used first."""
        # A lookup through LRUCache would mark each model as the most recently used.
        every = [self._seen(model_id) for model_id in self._cache]
        return sorted(every, key=lambda resident: resident.last_used, reverse=True)

    def seen(self, model_id: ModelId) -> Resident[Model] | None:
        """Return the model's resident without marking it as used; ``None`` if the model is not in memory."""
        return self._seen(model_id) if model_id in self._cache else None

    def _seen(self, model_id: ModelId) -> Resident[Model]:
        return Cache.__getitem__(self._cache, model_id)

    def is_pinned(self, model_id: ModelId) -> bool:
        """Whether the model is never evicted."""
        return model_id in self._pinned

    def get(self, model_id: ModelId) -> Resident[Model] | None:
        """Return the model's resident, now the most recently used; ``None`` if the model is not in memory."""
        return self._cache.get(model_id)

    def lease(self, resident: Resident[Model]) -> Lease[Model]:
        """Return a lease. REQUIRES: ``resident`` came from :meth:`get` or :meth:`admit` in this turn of the loop."""
        resident.last_used = time.monotonic()
        return Lease(self, resident)

    def reserve(self, size: int, *, replaces: int = 0) -> Reservation:
        """Set aside ``size`` bytes, evicting idle models, least recently used first.

        Args:
            size: bytes to set aside.
            replaces: 1 if the model replaces one in memory, which leaves the count of models unchanged.

        Raises:
            ModelTooLarge: ``size`` exceeds the whole budget. Nothing is evicted.
            MemoryInUse: too much is in use or being loaded. Nothing is evicted.
        """
        self._make_room(size, size, models=1 - replaces)
        reservation = Reservation(size)
        self._reservations.add(reservation)
        self._reserved_bytes += size
        return reservation

    def resize(self, reservation: Reservation, size: int) -> None:
        """Change a reservation to ``size`` bytes. Raises the errors of :meth:`reserve`; an error changes nothing."""
        self._make_room(size, size - reservation.size, models=0)
        self._reserved_bytes += size - reservation.size
        reservation.size = size

    def cancel(self, reservation: Reservation) -> None:
        """Release the reserved bytes; a repeated call, or one after :meth:`admit`, does nothing."""
        if reservation in self._reservations:
            self._reservations.discard(reservation)
            self._reserved_bytes -= reservation.size

    def admit(
        self, model_id: ModelId, model: Model, fingerprint: Fingerprint, reservation: Reservation
    ) -> Resident[Model]:
        """Admit a loaded model in place of its reservation and of its older copy.

        REQUIRES: the reservation has the size of the model.
        """
        self.discard(model_id)
        self.cancel(reservation)
        self._generations += 1
        resident = Resident(
            model_id, model, fingerprint, self._generations, reservation.size, checked_at=time.monotonic()
        )
        self._cache[model_id] = resident
        return resident

    def discard(self, model_id: ModelId) -> None:
        """Remove the model; if it is in use, its bytes count until the last lease ends."""
        resident = self._cache.pop(model_id, None)
        if resident is not None and resident.leases:
            resident.dismissed = True
            self._dismissed_bytes += resident.size

    def end_lease(self, resident: Resident[Model]) -> None:
        """Decrement the count of leases. Called by :class:`Lease`."""
        resident.leases -= 1
        if resident.dismissed and not resident.leases:
            resident.dismissed = False
            self._dismissed_bytes -= resident.size

    def _make_room(self, size: int, more: int, *, models: int) -> None:
        """Evict until ``more`` bytes and ``models`` fit, for a model of ``size`` bytes; if they cannot, evict none."""
        if size > self._max_bytes:
            raise ModelTooLarge("the model alone needs more memory than the service may use for all models")
        bytes_over = self.bytes_held + more - self._max_bytes
        models_over = len(self._cache) + len(self._reservations) + models - self._max_models
        if not self._evicted(bytes_over, models_over):
            raise MemoryInUse("models in use occupy all memory for models; try again shortly")

    def _evicted(self, bytes_over: int, models_over: int) -> bool:
        """Evict idle models until neither limit is exceeded; return whether enough are idle, else evict none."""
        taken: list[Resident[Model]] = []
        while (bytes_over > 0 or models_over > 0) and self._cache:
            _, resident = self._cache.popitem()
            taken.append(resident)
            if self._is_idle(resident):
                bytes_over -= resident.size
                models_over -= 1
        enough = bytes_over <= 0 and models_over <= 0
        for resident in taken:
            # A model in use counts as just used: reinsert it as the most recent. If too few are idle, reinsert all.
            if enough and self._is_idle(resident):
                self._count_eviction(resident)
            else:
                self._cache[resident.model_id] = resident
        return enough

    def _is_idle(self, resident: Resident[Model]) -> bool:
        return not resident.leases and resident.model_id not in self._pinned

    def _count_eviction(self, resident: Resident[Model]) -> None:
        self.statistics.evictions += 1
        self.statistics.eviction_age_seconds.observe(time.monotonic() - resident.last_used)
