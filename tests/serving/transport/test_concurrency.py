"""The limit of calls in work, tested with simulated services: no time passes."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.transport.concurrency import ConcurrencyLimit, Goal

MOST = 16_384
LEAST = 16


@dataclass
class Service:
    """A service that answers first come, first served, and the limit before it."""

    seconds: Callable[[int], float]
    """Duration of this number of calls that are answered together, in seconds."""
    most_together: int = 1
    limit: ConcurrencyLimit = field(default_factory=lambda: ConcurrencyLimit(MOST, Goal(least=LEAST)))
    now: float = 0.0
    took: list[float] = field(default_factory=list)
    waited: int = 0
    limits: list[int] = field(default_factory=list)

    def serve(self, callers: int, seconds: float, *, deadline: float = 30.0, rate: float = 0.0) -> None:
        """Let calls arrive for ``seconds``: from callers that call again after each answer, or at ``rate`` a second."""
        until = self.now + seconds
        arrivals: list[float] = [self.now] * callers
        outside: deque[float] = deque()
        inside: deque[float] = deque()
        free_at = self.now
        next_at = self.now
        while self.now < until:
            while arrivals and arrivals[0] <= self.now:
                heapq.heappop(arrivals)
                outside.append(self.now)
            while rate and next_at <= self.now:
                outside.append(next_at)
                next_at += 1.0 / rate
            while outside and len(inside) < self.limit.value:
                outside.popleft()
                inside.append(self.now)
            self.waited += len(outside)
            together = [inside[index] for index in range(min(self.most_together, len(inside)))]
            if together:
                free_at = self.now + self.seconds(len(together))
                self.now = free_at
                for entered in together:
                    self.took.append(self.now - entered)
                    self.limit.answers += 1
                    self.limit.sample(entered, entered + deadline, self.now, len(inside), len(outside))
                    inside.popleft()
                    if not rate:
                        heapq.heappush(arrivals, self.now)
            else:
                self.now = next_at if rate else arrivals[0]
            if outside and self.limit.value == len(inside):
                self.limit.first_waits(self.now)
            self.limits.append(self.limit.value)


def batches(first: float, further: float) -> Callable[[int], float]:
    return lambda calls: first + further * calls


@pytest.mark.parametrize("callers", [1, 64, 256, 1000])
@pytest.mark.parametrize("most_together", [1, 256])
def test_callers_of_a_healthy_service_are_never_kept_waiting(callers: int, most_together: int) -> None:
    service = Service(batches(0.0002, 0.00008), most_together)

    service.serve(callers, 3.0)

    assert service.waited == 0
    assert service.limit.value == MOST


@pytest.mark.parametrize("deadline", [0.4, 2.0, 30.0])
@pytest.mark.parametrize("seconds_each", [0.001, 0.01, 0.02])
def test_a_service_that_is_asked_for_too_much_takes_what_it_can_answer_in_half_of_the_time(
    seconds_each: float, deadline: float
) -> None:
    service = Service(batches(0.0, seconds_each))

    service.serve(0, 20.0, deadline=deadline, rate=5.0 / seconds_each)

    goal = max(min(0.5, deadline / 2), LEAST * seconds_each)
    settled = service.took[len(service.took) // 2 :]
    assert max(settled) <= goal * 1.3
    # The service always has work to do, too.
    assert min(service.limits) >= LEAST
    assert len(service.took) >= 19.0 / seconds_each


def test_calls_that_always_take_long_are_no_overload() -> None:
    service = Service(batches(2.0, 0.0), most_together=MOST)
    service.serve(4, 30.0, deadline=600.0)

    service.serve(500, 200.0, deadline=600.0)

    assert service.limit.value == MOST


def test_more_callers_than_are_answered_in_the_time_wait_and_are_answered_as_fast() -> None:
    service = Service(batches(0.0, 0.0004))

    service.serve(4000, 10.0)

    assert service.limit.value < 2000
    assert len(service.took) == pytest.approx(10.0 / 0.0004, rel=0.01)


def test_the_limit_grows_again_once_the_service_is_fast_again() -> None:
    service = Service(batches(0.0, 0.02))
    service.serve(0, 10.0, rate=200.0)
    assert service.limit.value < 50

    service.seconds = batches(0.0, 0.0001)
    service.serve(1000, 3.0)

    assert service.limit.value >= 1000


def test_the_rate_while_calls_wait_is_known() -> None:
    service = Service(batches(0.0, 0.01))

    service.serve(0, 10.0, rate=300.0)

    assert service.limit.rate == pytest.approx(100.0, rel=0.1)


def test_one_slow_call_among_fast_ones_changes_nothing() -> None:
    limit = ConcurrencyLimit(MOST, Goal(least=LEAST))
    now = 0.0
    for number in range(10_000):
        now += 0.001
        limit.answers += 1
        limit.sample(now - (9.0 if number % 5 == 0 else 0.002), now + 30.0, now, 100, 0)

    assert limit.value == MOST


@given(
    most=st.integers(1, 50),
    least=st.integers(1, 50),
    calls=st.lists(
        st.tuples(st.floats(1e-6, 100.0), st.floats(1e-6, 100.0), st.integers(1, 60), st.integers(0, 60)), max_size=200
    ),
)
def test_whatever_is_measured_the_limit_stays_within_its_bounds(
    most: int, least: int, calls: list[tuple[float, float, int, int]]
) -> None:
    limit = ConcurrencyLimit(most, Goal(least=least))
    now = 0.0
    for took, deadline, in_work, waiting in calls:
        now += took
        limit.answers += 1
        if waiting:
            limit.first_waits(now)
        limit.sample(now - took, now - took + deadline, now, in_work, waiting)
        assert min(most, least) <= limit.value <= most
        assert limit.rate >= 0.0
