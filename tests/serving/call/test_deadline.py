from __future__ import annotations

import time

import pytest

from serving.call.deadline import Deadline
from serving.domain.errors import DeadlineExceeded
from tests.serving.refusals import refused


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock: set its one element to move it."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_shrinks_with_the_clock_and_stops_at_zero(clock: list[float]) -> None:
    deadline = Deadline.after(2.0)
    assert deadline.remaining() == 2.0
    clock[0] += 1.5
    assert deadline.remaining() == 0.5
    clock[0] += 60.0
    assert deadline.remaining() == 0.0


def test_a_check_passes_until_the_moment_and_fails_from_it_on(clock: list[float]) -> None:
    deadline = Deadline.after(2.0)
    clock[0] += 1.999
    deadline.check()
    clock[0] += 0.001
    with refused(DeadlineExceeded):
        deadline.check()


@pytest.mark.parametrize("seconds", [0.0, -1.0, -1e9])
def test_a_deadline_of_no_time_has_passed_already(seconds: float) -> None:
    deadline = Deadline.after(seconds)
    assert deadline.remaining() == 0.0
    with refused(DeadlineExceeded):
        deadline.check()


def test_an_infinite_deadline_never_passes(clock: list[float]) -> None:
    deadline = Deadline.after(float("inf"))
    clock[0] += 1e12
    deadline.check()


def test_a_deadline_cannot_be_moved() -> None:
    with pytest.raises(AttributeError):
        Deadline.after(1.0).at = 5.0  # type: ignore[misc]
