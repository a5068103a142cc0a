"""Quotas of a frontend with several workers: all workers share one ledger, even when some of them die."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Barrier

import pytest

from frontend.quotas.ledger import Tenant
from frontend.quotas.shared import FORGET_SECONDS, FRESH_SECONDS, Participant, SharedLedger
from serving.call.limits import Limits
from serving.domain.errors import QuotaExceeded
from tests.builders import PATIENCE

WORKERS = 4
SECONDS = 1.5
BUCKET = Limits(requests_per_second=200.0, burst=400.0)
"""Limits whose bucket takes longer to fill than the test runs."""


@dataclass
class Crew:
    """Workers over one memory, with the time and the generations that a test sets."""

    workers: int = 2
    most_tenants: int = 64
    now: float = 1000.0
    generations: list[int] = field(default_factory=lambda: [0, 0])
    memory: int = field(default_factory=lambda: os.memfd_create("quotas"))

    def ledger(self, index: int) -> SharedLedger:
        participant = Participant(index, self.workers, lambda: self.generations)
        return SharedLedger(self.memory, participant, most_tenants=self.most_tenants, clock=lambda: self.now)


@pytest.fixture
def crew() -> Iterator[Crew]:
    it = Crew()
    yield it
    os.close(it.memory)


def is_admitted(ledger: SharedLedger, limits: Limits, name: str = "acme", documents: int = 1) -> bool:
    """Make a call and end it; return whether it was admitted."""
    try:
        tenant = ledger.enter(name, limits, documents)
    except QuotaExceeded:
        return False
    if tenant is not None:
        tenant.leave()
    return True


class Shared:
    """State that each process of the pool starts with."""

    together: Barrier


def begin(together: Barrier) -> None:
    Shared.together = together


def admissions(memory: int, of: int, index: int) -> list[float]:
    """Make calls for a while, and until one is refused; return the times of admitted calls, and of the last call."""
    told = [0.0]

    def clock() -> float:
        told[0] = time.monotonic()
        return told[0]

    participant = Participant(index, WORKERS, lambda: (0,) * WORKERS)
    ledger = SharedLedger(os.open(f"/proc/{of}/fd/{memory}", os.O_RDWR), participant, clock=clock)
    admitted: list[float] = []
    Shared.together.wait(PATIENCE)
    until = time.monotonic() + SECONDS
    while True:
        try:
            ledger.enter("acme", BUCKET, 1)
        except QuotaExceeded:
            if told[0] > until:
                return [*admitted, told[0]]
        else:
            # The time is the one that the ledger has read, because the process may be held up anywhere.
            admitted.append(told[0])


@pytest.mark.slow
def test_processes_that_ask_at_the_same_time_admit_what_one_would(crew: Crew) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(WORKERS, begin, (context.Barrier(WORKERS),)) as pool:
        asked = [(crew.memory, os.getpid(), index) for index in range(WORKERS)]
        of_each: Sequence[list[float]] = pool.starmap_async(admissions, asked, chunksize=1).get(2 * PATIENCE)
    last = max(times.pop() for times in of_each)
    admitted = sorted(moment for times in of_each for moment in times)
    assert min(map(len, of_each))
    # The calls that a single bucket would have left after each admission.
    left, least, former = BUCKET.burst, BUCKET.burst, admitted[0]
    for moment in admitted:
        left = min(BUCKET.burst, left + BUCKET.requests_per_second * (moment - former)) - 1
        least, former = min(least, left), moment
    # Tolerance: one call of each further worker at one moment. Over time, neither too many nor too few are admitted.
    assert least > -WORKERS
    assert left + BUCKET.requests_per_second * (last - former) < 2


def test_a_call_in_flight_counts_for_every_worker_until_it_ends(crew: Crew) -> None:
    one, other = crew.ledger(0), crew.ledger(1)
    limits = Limits(in_flight=2)
    first, second = one.enter("acme", limits, 1), other.enter("acme", limits, 1)
    assert not is_admitted(one, limits)
    assert not is_admitted(other, limits)
    assert first is not None
    first.leave()
    assert is_admitted(other, limits)
    assert second is not None
    second.leave()
    assert is_admitted(one, limits)


def test_calls_in_flight_of_a_worker_that_died_are_given_back_and_its_documents_are_not(crew: Crew) -> None:
    limits = Limits(requests_per_second=1, burst=4, in_flight=2)
    one, other = crew.ledger(0), crew.ledger(1)
    one.enter("acme", limits, 1)
    one.enter("acme", limits, 1)
    assert not is_admitted(other, limits)

    crew.generations[0] = 1
    assert is_admitted(other, limits)
    successor = crew.ledger(0)
    held = successor.enter("acme", limits, 1)
    assert held is not None
    held.leave()
    # The tenant has used four documents, two of them at the worker that died.
    assert not is_admitted(other, limits)
    crew.now += 1
    assert is_admitted(successor, limits)


def test_a_tenant_that_pauses_keeps_what_it_owes(crew: Crew) -> None:
    slow = Limits(requests_per_second=0.001, burst=2)
    one, other = crew.ledger(0), crew.ledger(1)
    assert is_admitted(one, slow, documents=2)
    for pause in (FRESH_SECONDS + 1, FORGET_SECONDS + 1):
        crew.now += pause
        assert not is_admitted(other, slow)
        assert not is_admitted(one, slow)


def test_a_tenant_whose_slot_went_to_another_gets_no_second_burst(crew: Crew) -> None:
    crew.most_tenants = 8
    slow = Limits(requests_per_second=0.01, burst=5)
    one, other = crew.ledger(0), crew.ledger(1)
    assert is_admitted(one, slow, "greedy", 5)
    crew.now += FORGET_SECONDS + 1
    for number in range(8):
        is_admitted(other, slow, f"tenant-{number}", 0)
    crew.now += FORGET_SECONDS + 1
    assert not is_admitted(one, slow, "greedy")
    assert not is_admitted(other, slow, "greedy")
    crew.now += 500
    assert is_admitted(other, slow, "greedy", 5)


def test_the_slot_of_a_call_in_flight_is_kept_however_long_it_takes(crew: Crew) -> None:
    crew.most_tenants = 8
    limits = Limits(in_flight=1)
    one, other = crew.ledger(0), crew.ledger(1)
    held = one.enter("held", limits, 1)
    for number in range(50):
        crew.now += FORGET_SECONDS + 1
        assert is_admitted(other, limits, f"tenant-{number}")
        assert not is_admitted(other, limits, "held")
    assert held is not None
    held.leave()
    assert is_admitted(other, limits, "held")


def test_where_no_slot_is_left_each_worker_counts_alone(crew: Crew) -> None:
    crew.most_tenants = 8
    limits = Limits(requests_per_second=1, burst=2)
    one = crew.ledger(0)
    for number in range(8):
        assert is_admitted(one, limits, f"tenant-{number}", 2)
    assert [is_admitted(one, limits, "one more") for _ in range(3)] == [True, True, False]


def test_a_quota_that_is_changed_holds_for_what_was_asked_before(crew: Crew) -> None:
    one, other = crew.ledger(0), crew.ledger(1)
    assert is_admitted(one, Limits(requests_per_second=1, burst=10), documents=10)
    # The bucket is full in ten seconds, as before the change; the burst of the new rate takes one second.
    fast = Limits(requests_per_second=100, burst=100)
    assert not is_admitted(other, fast)
    crew.now += 9.5
    assert is_admitted(other, fast, documents=50)
    assert not is_admitted(one, fast)


def test_the_tenants_of_a_frontend_are_known_by_any_name(crew: Crew) -> None:
    one, other = crew.ledger(0), crew.ledger(1)
    limits = Limits(in_flight=1)
    held: list[Tenant | None] = []
    for name in ("", "a" * 1000, "ünïcode", "\udcff"):
        held.append(one.enter(name, limits, 1))
        assert not is_admitted(other, limits, name)
