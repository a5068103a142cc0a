"""Quotas of a frontend with several workers: one ledger in memory that all workers map.

A tenant has one quota, whichever worker its connections reach. Besides the tenant's digest, its slot holds:

- for each worker, the documents that it has admitted since the slot was given to the tenant, and its calls in flight.
  Only that worker writes these numbers, so that no update is lost, even without a lock;
- the bucket's ``anchor``. The bucket is full again at ``anchor`` plus the time that all documents together take at the
  rate. The anchor moves forward when the bucket is full.

Two workers that admit calls of one tenant within the same few microseconds may not see each other's calls. So a tenant
may at one moment have one call too many for each further worker; the documents are counted nevertheless, and the tenant
pays for them by waiting afterwards. The calls in flight of a worker that has died no longer count once the supervisor
has noticed its death, because the next process in its place has another generation.

The slots of new tenants, and of tenants that return after a pause, are looked up under a lock. A slot may be given to
another tenant only after a pause twice as long, so that no worker writes to a slot that its tenant has lost.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from frontend.quotas.ledger import MOST_TENANTS, Tenant, check_bucket, check_in_flight, full_at_first
from frontend.quotas.local import LocalLedger
from serving.call.limits import Limits

FRESH_SECONDS: Final = 5.0
"""Pause of a tenant after which its slot is looked up again, in seconds."""
FORGET_SECONDS: Final = 2 * FRESH_SECONDS
"""Pause of a tenant after which its slot may be given to another tenant, in seconds."""

_TOUCH_SECONDS: Final = 1.0
_WAYS: Final = 8
"""Number of slots in which a tenant may be."""
_MOST_BYTES: Final = 64 << 20
_HEADER_BYTES: Final = 64
_DIGEST_BYTES: Final = 16
_LOCK_SECONDS: Final = 0.002
_COUNT_BITS: Final = 32
_MOST_COUNT: Final = (1 << _COUNT_BITS) - 1
# Tolerance for rounding: sums of large numbers are off by more than a clock.
_ROUNDING_SECONDS: Final = 1e-6

_CELL_BYTES: Final = 8
_NOBODY: Final = bytes(_DIGEST_BYTES)

# Cells within a slot, after the digest.
_CALLED_AT: Final = 2
_RATE: Final = 3
_ANCHOR: Final = 4
_FIRST_WORKER: Final = 5
_FIXED_VALUES: Final = 4

_Values: TypeAlias = tuple[Any, ...]
"""Contents of a slot: digest, time of the last call, rate, anchor, documents of each worker, calls of each worker."""


@dataclass(frozen=True, slots=True)
class Participant:
    """This process among those that share the ledger."""

    index: int
    """Number of this process, from 0."""
    workers: int
    """Number of processes."""
    generations: Callable[[], Sequence[int]]
    """Returns, for each position, how many of its processes have ended."""


class SharedTenant:
    """State of a tenant in this worker."""

    __slots__ = ("_ledger", "digest", "offset")

    def __init__(self, ledger: SharedLedger, digest: bytes) -> None:
        self._ledger = ledger
        self.digest = digest
        self.offset = _HEADER_BYTES
        """Last known offset of the tenant's slot; the digest in the slot shows whether it is still valid."""

    def leave(self) -> None:
        """Release the slot of one call."""
        self._ledger.leave(self)


class SharedLedger:
    """A :class:`~frontend.quotas.ledger.Ledger` that several processes share.

    Args:
        descriptor: file descriptor of the shared memory, which is empty at first.
        participant: this process among those that share the ledger.
        most_tenants: number of slots, rounded down to whole sets; with many workers there are fewer.
        clock: returns the time in seconds, the same in all processes.
    """

    def __init__(
        self,
        descriptor: int,
        participant: Participant,
        *,
        most_tenants: int = MOST_TENANTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._descriptor = descriptor
        self._participant = participant
        self._generation = participant.generations()[participant.index] & _MOST_COUNT
        self._clock = clock
        self._slot = struct.Struct(f"@{_DIGEST_BYTES}s3d{participant.workers}d{participant.workers}Q")
        self._sets = max(1, min(most_tenants, _MOST_BYTES // self._slot.size) // _WAYS)
        self._documents = slice(_FIXED_VALUES, _FIXED_VALUES + participant.workers)
        self._calls = slice(_FIXED_VALUES + participant.workers, None)
        self._own_documents = _FIXED_VALUES + participant.index
        self._own_calls = self._own_documents + participant.workers
        self._documents_cell = _FIRST_WORKER + participant.index
        self._calls_cell = self._documents_cell + participant.workers
        size = _HEADER_BYTES + self._sets * _WAYS * self._slot.size
        # Every process makes this call, and only the first call has an effect.
        os.ftruncate(descriptor, size)
        self._memory = mmap.mmap(descriptor, size)
        # A view writes a cell with one store; a struct would zero the cell first, and another process could read the
        # zero.
        view = memoryview(self._memory)
        self._numbers = view.cast("d")
        self._counts = view.cast("Q")
        self._known: dict[str, SharedTenant] = {}
        self._alone = LocalLedger(most_tenants=most_tenants, clock=clock)
        """Ledger of tenants for which no slot was found."""

    def enter(self, name: str, limits: Limits, documents: int) -> Tenant | None:
        """Admit a call. Raises QuotaExceeded."""
        now = self._clock()
        tenant = self._known.get(name) or self._meet(name)
        values = self._slot.unpack_from(self._memory, tenant.offset)
        if values[0] != tenant.digest or now - values[1] > FRESH_SECONDS:
            found = self._find(tenant, limits, now)
            if found is None:
                return self._alone.enter(name, limits, documents)
            values = found
        elif now - values[1] > _TOUCH_SECONDS:
            self._numbers[tenant.offset // _CELL_BYTES + _CALLED_AT] = now
        if limits.in_flight:
            check_in_flight(self._in_flight(values), limits)
        if limits.requests_per_second:
            self._take(tenant, values, limits, documents, now)
        if not limits.in_flight:
            return None
        self._count_call(tenant, values[self._own_calls], 1)
        return tenant

    def leave(self, tenant: SharedTenant) -> None:
        """Count a call that has ended. The slot stays the tenant's while a call is in flight."""
        self._count_call(tenant, self._counts[tenant.offset // _CELL_BYTES + self._calls_cell], -1)

    def _count_call(self, tenant: SharedTenant, cell: int, change: int) -> None:
        count = cell & _MOST_COUNT if cell >> _COUNT_BITS == self._generation else 0
        cell = self._generation << _COUNT_BITS | count + change
        self._counts[tenant.offset // _CELL_BYTES + self._calls_cell] = cell

    def _meet(self, name: str) -> SharedTenant:
        if len(self._known) >= MOST_TENANTS:
            # Calls in flight keep a reference to their tenants, and the slot of every tenant is found again.
            self._known.clear()
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
        tenant = self._known[name] = SharedTenant(self, digest)
        return tenant

    def _in_flight(self, values: _Values) -> int:
        in_flight = 0
        for cell, generation in zip(values[self._calls], self._participant.generations(), strict=True):
            if cell & _MOST_COUNT and cell >> _COUNT_BITS == generation & _MOST_COUNT:
                in_flight += cell & _MOST_COUNT
        return in_flight

    def _take(self, tenant: SharedTenant, values: _Values, limits: Limits, documents: int, now: float) -> None:
        """Take the documents out of the tenant's bucket, or raise QuotaExceeded and change nothing."""
        rate = limits.requests_per_second
        anchor = values[3] if values[2] == rate else self._with_rate(tenant, values, rate, now)
        filling = sum(values[self._documents]) / rate
        until_full = anchor + filling - now
        if until_full < 0.0:
            until_full = 0.0
            self._numbers[tenant.offset // _CELL_BYTES + _ANCHOR] = now - filling
        check_bucket(until_full, limits, documents, _ROUNDING_SECONDS)
        admitted = values[self._own_documents] + documents
        self._numbers[tenant.offset // _CELL_BYTES + self._documents_cell] = admitted

    def _with_rate(self, tenant: SharedTenant, values: _Values, rate: float, now: float) -> float:
        """Change the rate of the bucket, but not the time at which it is full; return its anchor."""
        anchor = (_full_at(values, self._documents) or now) - sum(values[self._documents]) / rate
        cells = tenant.offset // _CELL_BYTES
        self._numbers[cells + _ANCHOR] = anchor
        self._numbers[cells + _RATE] = rate
        return anchor

    def _find(self, tenant: SharedTenant, limits: Limits, now: float) -> _Values | None:
        """Return the values in the tenant's slot, which may be newly given to it; ``None`` if no slot is available."""
        with self._locked() as locked:
            if not locked:
                return None
            number = int.from_bytes(tenant.digest[:8], "little") % self._sets
            first = _HEADER_BYTES + number * _WAYS * self._slot.size
            free: list[tuple[float, int]] = []
            for offset in range(first, first + _WAYS * self._slot.size, self._slot.size):
                values = self._slot.unpack_from(self._memory, offset)
                if values[0] == tenant.digest:
                    self._numbers[offset // _CELL_BYTES + _CALLED_AT] = now
                    tenant.offset = offset
                    return values
                if values[0] == _NOBODY or (now - values[1] > FORGET_SECONDS and not self._in_flight(values)):
                    free.append((_full_at(values, self._documents), offset))
            if not free:
                return None
            # The bucket that is full, or will be soonest: its owner loses the least.
            full_at, tenant.offset = min(free)
            return self._give(tenant, full_at, limits, now)

    def _give(self, tenant: SharedTenant, forgotten_full_at: float, limits: Limits, now: float) -> _Values:
        """Give the slot at the tenant's offset to the tenant; return the values in the slot."""
        # Any new tenant may be one that was forgotten, and must not get a second burst.
        latest = self._numbers[0] = max(self._numbers[0], forgotten_full_at)
        rate = limits.requests_per_second
        anchor = full_at_first(latest, limits, now) if rate else 0.0
        zeros = (0,) * (2 * self._participant.workers)
        # The time of the last call is 0 until the slot is complete, so that no worker uses the slot before then.
        self._slot.pack_into(self._memory, tenant.offset, tenant.digest, 0.0, rate, anchor, *zeros)
        self._numbers[tenant.offset // _CELL_BYTES + _CALLED_AT] = now
        return self._slot.unpack_from(self._memory, tenant.offset)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock on all slots within the block; yield whether it was acquired in time."""
        given_up = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
            except OSError:
                # The holder needs microseconds, unless it was suspended; a worker that dies releases the lock.
                if time.monotonic() > given_up:
                    yield False
                    return
                os.sched_yield()
            else:
                break
        try:
            yield True
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)


def _full_at(values: _Values, documents: slice) -> float:
    """Return when the bucket in a slot is full; 0 if the slot has no bucket."""
    rate: float = values[2]
    anchor: float = values[3]
    return anchor + sum(values[documents]) / rate if rate else 0.0
